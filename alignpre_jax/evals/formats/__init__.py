"""Reads other people's scenarios and tasks from their files into our own types."""
