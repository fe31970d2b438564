"""What could turn the verdict stands before it, in the text and on the page."""

import mistune
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from hw1_utils.report.conclusion import write
from hw1_utils.report.findings import Finding, after_the_verdict, before_the_verdict
from hw1_utils.report.words import literal

LEAK = Finding(f"Without the 12 copies **the CNN** is ahead of **{literal('<probe>')}**.", turns=True)
LABELS = Finding("About 1% of the labels look wrong.", turns=False)


def test_without_findings_there_is_nothing_said(tmp_path):
    assert before_the_verdict([]) == after_the_verdict([]) == "" and write(tmp_path, "compared\n") == "compared\n"
    assert pd.read_csv(tmp_path / "findings.csv").columns.tolist() == ["text", "turns"]


@pytest.mark.parametrize("findings", [[LABELS, LEAK], [LEAK, LABELS]])
def test_what_could_turn_the_verdict_comes_before_it_in_bold_and_the_others_after_it(tmp_path, findings):
    text = write(tmp_path, "*stamp*\n\ncompared\n", corrections="corrected\n", findings=findings)
    assert text == (tmp_path / "conclusion.md").read_text()
    soup = BeautifulSoup(mistune.html(text), "html.parser")
    bold = [item.strong.get_text() for item in soup.find_all("li") if item.strong]
    assert bold == ["Without the 12 copies the CNN is ahead of <probe>."]
    assert [item.get_text() for item in soup.find_all("li")][1] == LABELS.text
    order = ("could turn the verdict", "12 copies", "*stamp*", "compared", "hides", "1%", "corrected")
    places = [text.index(words) for words in order]
    assert places == sorted(places)
    assert pd.read_csv(tmp_path / "findings.csv")["turns"].tolist() == [one.turns for one in findings]


def test_findings_of_an_earlier_run_do_not_stay(tmp_path):
    write(tmp_path, "compared\n", findings=[LEAK])
    write(tmp_path, "compared\n")
    assert pd.read_csv(tmp_path / "findings.csv").empty


@pytest.mark.parametrize("turns", [True, False])
@pytest.mark.parametrize("name", ["**a**", "a*", "*", "_x_", "a\\"])
def test_names_in_findings_stay_letter_by_letter(name, turns):
    said = before_the_verdict if turns else after_the_verdict
    text = said([Finding(f"{literal(name)} twice, and {literal(name)}.", turns)])
    soup = BeautifulSoup(mistune.html(text), "html.parser")
    assert soup.li.get_text() == f"{name} twice, and {name}." and soup.li.find("em") is None
