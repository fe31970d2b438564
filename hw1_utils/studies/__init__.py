"""Questions beside the comparison, one a file."""

from ..config import Config


def asked(config: Config, question: str) -> bool:
    """Whether the run is to answer this one of `questions.STUDIES`; says it where it is not."""
    wanted = question in config.asked
    if not wanted:
        print(f"skipped: `{question}` is not among the studies of this run ({config.studies}); all would have it")
    return wanted
