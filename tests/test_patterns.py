"""Regular expressions that files bring: as Python reads them, in a time that grows with the path alone."""

from __future__ import annotations

import re
import time
import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused

from graftax import IA3, Adapter, GraftaxError, LoKr, LoRA
from graftax.adapters.formats.peft.shared_keys import read_targets
from graftax.adapters.patterns import fullmatch, matches, pattern_value

ENDLESS = "(?:[a-z0-9._]+)+!"
PATH = "bert.encoder.layer.11.attention.self.query"
PATTERNS = [
    r".*\.(query|value)",
    r".*layer\.(1|11)\..*query",
    r"bert\.encoder\.layer\.\d+\.attention\.self\.(?P<part>query|key)",
    r"(?:.*?(?:attention|mlp).*?(?:query|value).*?)|(?:\bmodel\.layers\.[\d]{1,}\.self_attn)",
    r"(?i)BERT.*QUERY",
    r"^bert\.[a-z]+\..*$",
    r"bert\.encoder\.layer\.[0-5]\..*",
    r".*query.",
    r"",
]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("path", [PATH, PATH.replace("11", "3"), "bert.pooler.dense", "query", ""])
def test_as_python_reads_them(pattern: str, path: str) -> None:
    assert (fullmatch(pattern, path) is not None) == (re.fullmatch(pattern, path) is not None)


pieces = st.sampled_from(
    [*"abq.1_*+?|()[]{}^$\\-,:", "query", ".*", r"\.", r"\d+", "(?:", "(?i)", "(?=", r"\1", "{2,3}", "{,2}", "[^.]", "layer"]
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(pattern=st.lists(pieces, max_size=8).map("".join) | st.text(max_size=6), path=st.sampled_from(["self.query", "a.b", ""]))
def test_any_pattern_is_read_as_python_reads_it_or_refused(pattern: str, path: str) -> None:
    """On paths short enough for an engine that tries all ways."""
    found: list[bool] = []
    if refused(lambda: found.append(fullmatch(pattern, path) is not None)) is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's, of sets that it may read in another way one day
            assert found == [re.fullmatch(pattern, path) is not None]


def uses(backbone: Any) -> dict[str, Any]:
    """Everywhere a file's pattern is tried on paths."""
    sites = backbone.sites
    return {
        "targets": lambda pattern: LoRA(targets=pattern).select(sites),
        "feedforward": lambda pattern: Adapter.create((IA3(feedforward=pattern),), sites),
        "rank pattern": lambda pattern: Adapter.create((LoRA(rank_pattern={pattern: 2}),), sites),
        "alpha pattern": lambda pattern: Adapter.create((LoKr(alpha_pattern={pattern: 2.0}),), sites),
        "exclude_modules": lambda pattern: read_targets({"target_modules": ["query"], "exclude_modules": pattern}, sites),
        "layers_pattern": lambda pattern: read_targets(
            {"target_modules": ["query"], "layers_to_transform": [0], "layers_pattern": pattern}, sites
        ),
    }


@pytest.mark.parametrize(
    "use", ["targets", "feedforward", "rank pattern", "alpha pattern", "exclude_modules", "layers_pattern"]
)
def test_no_pattern_hangs_and_what_is_none_is_refused(use: str, backbone_of: Any) -> None:
    call = uses(backbone_of("bert"))[use]
    began = time.process_time()
    refused(lambda: call(ENDLESS))
    assert time.process_time() - began < 5.0
    for bad in ("(", "(?!query).*", r"(a)\1", "a{5000}", "\udc80", "a" * 100_000):
        line = refused(lambda bad=bad: call(bad))
        assert line is not None, bad
        assert "regular expression" in line


def test_the_first_pattern_that_matches_the_end_at_a_dot_wins() -> None:
    ranks = {"attention.self.key": 1, "self.query|pooler": 2, "query": 3}
    assert [pattern_value(ranks, 8, path) for path in (PATH, "x.my_query", "x.query", "a.pooler.dense")] == [2, 8, 3, 8]
    assert pattern_value({r"^bert\..*query": 4}, 8, PATH) == 4
    assert pattern_value({r"^self\.query": 4}, 8, PATH) == 8
    assert pattern_value({r"layer\.1\.": 4}, 8, PATH) == 8


def test_a_list_is_of_names_and_no_patterns() -> None:
    assert matches(("self.query",), PATH)
    assert not matches((r"self\.query", ".*"), PATH)
    with pytest.raises(GraftaxError, match=r"'\(' is not a regular expression here: missing \)"):
        matches("(", PATH)
