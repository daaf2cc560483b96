"""Holds the model of client pools against three real ones: the same requests, the same looks, the same measures."""
