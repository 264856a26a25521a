"""What a method costs: FLOPs, parameters, time."""
