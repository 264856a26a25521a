"""Every network that is loaded."""
