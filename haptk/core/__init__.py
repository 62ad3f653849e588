"""What is decided: pure state machines with five verbs and `now`. No socket, file, clock, environment or random source is read here."""
