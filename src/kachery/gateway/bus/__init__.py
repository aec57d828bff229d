"""Notifications between the processes of one gateway, or of one relay."""
