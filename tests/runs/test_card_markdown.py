"""Names of files cannot leave their place in a model card: neither the command's block nor a table's cell."""

from textcl.encoder.card import cell, code, fenced


def test_a_name_cannot_end_the_block_of_the_command() -> None:
    hostile = "textcl train simcse --data 'a\n```\n# owned\n````b.txt'"
    lines = fenced(hostile).splitlines()
    assert lines[0] == lines[-1] == "`````"
    assert "\n".join(lines[1:-1]) == hostile
    assert fenced("textcl train simcse") == "```\ntextcl train simcse\n```"


def test_a_name_cannot_end_a_cell_or_begin_html() -> None:
    assert cell("a|b\n| c <script> `x`") == "a&#124;b &#124; c &lt;script> 'x'"
    assert cell("stsb-dev") == "stsb-dev"
    assert code("a`b\nc") == "`a'b c`"
