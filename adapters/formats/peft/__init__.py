"""PEFT's files, which are graftax's own wherever PEFT has the method."""
