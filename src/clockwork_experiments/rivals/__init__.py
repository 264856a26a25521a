"""What others do with the same time: methods and time steps by published rules."""
