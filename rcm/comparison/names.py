"""The results that conclusions rest on, and the words in them; everything else a method may name as it likes."""

BEHAVIOUR, DIRECTION, TRANSPLANT = "behaviour", "direction", "transplant"
MEASURING = (BEHAVIOUR, DIRECTION)  # a run of one of these methods measured a model, and may stand beside others
SUMMARY = "summary"  # what the run itself adds after its methods
SELF_CHECKS = "summary/self_checks"

BEHAVIOUR_OUTCOME, REFUSES, STILL_THINKING = "behaviour/outcome", "refusal", "still_thinking"
REPLIES = "behaviour/transcripts"
REFUSING = ("refusal", "partial")  # verdicts of a judge
SEEN_IN_TRAINING = "behaviour/seen_in_training"

DIRECTION_OUTCOME, SELECTED, NEAREST_MISS = "direction/outcome", "selected", "nearest_miss"
DIRECTIONS, HELD_OUT = "direction/directions", "direction/held_out"
POSITION, LAYER, SEPARATION = "direction/position", "direction/layer", "direction/separation"

MATRIX, NOTHING = "transplant/matrix", "nothing"  # a row for each source; what a source does that steers nowhere
DECOMPOSITION = "transplant/decomposition"  # a row for each source and operation
TOGETHER = (MATRIX, DECOMPOSITION)  # tables that are shown of all runs at once
SEPARABILITY = "direction/separability"  # a row for each place
STEERING_OUTCOME, STEERED, UNSPECIFIC = "steering/outcome", "steered", "unspecific"

# What the picture of a family shows (`rcm.comparison.overview`).
REFUSAL_RATES = tuple(f"behaviour/refusal_rate_{kind}" for kind in ("harmful", "harmless", "lookalike"))
DECIDED_BY_LAYER = "patching/residual"
CIRCUIT_DIAGRAM, CIRCUIT_CARRIED = "circuit/diagram", "circuit/carried"
FORCED_BY_STRENGTH, SUPPRESSED_BY_STRENGTH = "steering/dose_response", "steering/dose_response_suppress"
STEERING_RATES = ("steering/force_rate", "steering/suppress_rate")
