"""What another checkpoint found, brought into this one: its direction, and what its components put out."""
