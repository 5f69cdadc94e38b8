"""Steering along a direction, beside controls of its length: what it turns over, and what that costs."""
