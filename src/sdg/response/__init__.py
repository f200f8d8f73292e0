"""The wire format of a diagnosis, both ways: `<think>…</think>` then `<answer>` + JSON list + `</answer>`.

`parse_response` reads leniently and says what it mended, `render_response` writes the canonical form, and
`format_fault` is the strict gate that training rewards stand behind (SDG §3.1, App. D.1).
"""

from sdg.response.gate import format_fault
from sdg.response.parsing import cut_off, parse_response
from sdg.response.strict import render_response

__all__ = ["cut_off", "format_fault", "parse_response", "render_response"]
