"""What leaves the daemon: metrics, JSON and the status page, all read off the last board, never off the world."""
