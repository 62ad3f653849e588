"""What is written: pure functions from declared values to text or documents. A template here knows nothing of disks or daemons."""
