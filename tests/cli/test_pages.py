"""The commands of the README and of docs/formats.md, run as they stand."""

import pytest
from pages import BLOCK, ROOT, Shell

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("page", ["README.md", "docs/formats.md"])
def test_the_commands_of_a_page_run_in_their_order_and_print_what_it_shows(page, tmp_path):
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert len(blocks) == text.count("```bash\n") > 1
    assert sum(bool(shown) for _, shown in blocks) == text.count("```text\n")
    Shell(tmp_path).run(blocks)
