"""Health checks as events: steps compiled to a table, one thread, one epoll, no GIL while a check is under way."""
