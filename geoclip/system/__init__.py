"""The operating system: files, processes, the console."""
