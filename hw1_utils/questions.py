"""The further questions, in the notebook's order: the one list of what `Config.studies` may name."""

# With what each writes into results/, without suffixes. The two that write nothing are trainings beside the comparison;
# each of the others is a function of this name in studies/<name>.py.
STUDIES: dict[str, tuple[str, ...]] = {
    "blocks": (),
    "recipes": (),
    "duplicates": ("duplicates", "without_twins"),
    "label_errors": ("label_errors", "label_error_shares", "without_suspects"),
    "baselines": ("baselines",),
    "coverage": ("coverage", "accuracy_by_coverage"),
    "mistakes": ("mistakes", "confused_cells"),
    "feature_map": ("feature_map",),
    "input_size": ("input_size",),
    "learning_curve": ("learning_curve",),
    "logreg": ("penalty",),
    "calibration": ("calibration",),
    "disagreement": ("differences", "confused_pairs", "disagreements"),
    "seeds": ("seeds",),
    "flips": ("flip_averaging",),
}
