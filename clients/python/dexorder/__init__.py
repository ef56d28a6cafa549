"""What a Python agent of the agent lifecycle uses."""
