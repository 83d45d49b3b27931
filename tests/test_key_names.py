"""A key's name has at least one character that can be seen."""

import unicodedata

import pytest
from marshmallow import ValidationError

from schemas.requests import visible

UNSEEN = {
    "space": " ",
    "tab": "\t",
    "line feed": "\n",
    "NUL's neighbour": "\x01",
    "delete": "\x7f",
    "next line": "\x85",
    "no-break space": "\xa0",
    "soft hyphen": "\xad",
    "combining grapheme joiner": "\u034f",
    "Arabic letter mark": "\u061c",
    "Hangul choseong filler": "\u115f",
    "Hangul jungseong filler": "\u1160",
    "Ogham space mark": "\u1680",
    "Khmer vowel inherent AQ": "\u17b4",
    "Khmer vowel inherent AA": "\u17b5",
    "Mongolian variation selector 1": "\u180b",
    "Mongolian variation selector 2": "\u180c",
    "Mongolian variation selector 3": "\u180d",
    "Mongolian vowel separator": "\u180e",
    "Mongolian variation selector 4": "\u180f",
    "en quad": "\u2000",
    "hair space": "\u200a",
    "zero width space": "\u200b",
    "zero width non-joiner": "\u200c",
    "zero width joiner": "\u200d",
    "left-to-right mark": "\u200e",
    "right-to-left mark": "\u200f",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "right-to-left override": "\u202e",
    "narrow no-break space": "\u202f",
    "mathematical space": "\u205f",
    "word joiner": "\u2060",
    "function application": "\u2061",
    "invisible times": "\u2062",
    "invisible plus": "\u2064",
    "an unassigned one of these": "\u2065",
    "first strong isolate": "\u2068",
    "inhibit symmetric swapping": "\u206a",
    "nominal digit shapes": "\u206f",
    "Braille pattern blank": "\u2800",
    "ideographic space": "\u3000",
    "Hangul filler": "\u3164",
    "variation selector 1": "\ufe00",
    "variation selector 15": "\ufe0e",
    "variation selector 16": "\ufe0f",
    "byte order mark": "\ufeff",
    "halfwidth Hangul filler": "\uffa0",
    "interlinear annotation anchor": "\ufff9",
    "shorthand format overlap": "\U0001bca0",
    "musical symbol begin beam": "\U0001d173",
    "language tag": "\U000e0001",
    "tag space": "\U000e0020",
    "cancel tag": "\U000e007f",
    "variation selector 17": "\U000e0100",
    "variation selector 256": "\U000e01ef",
}
TOGETHER = {
    "several": "\u200b\u2060\ufeff\xad\u3164\u2800\u061c",
    "a hundred": "\u200b" * 100,
    "spaces around": " \u2060 ",
    "a selector on a filler": "\u3164\ufe0f",
    "a joined nothing": "\u200d\ufe0f\u200d",
    "an invisible flag": "\U000e0067\U000e0062\U000e007f",
    "blanks of every kind": "\u2800\u3164\uffa0\u115f\u1160 \t\u3000",
    "reversed nothing": "\u202e\u200f\u202c",
}


@pytest.mark.parametrize("name", [*UNSEEN.values(), *TOGETHER.values()], ids=ascii)
def test_a_name_that_nobody_can_see_is_refused(alice, sql, name):
    for text in (name, name * 3):
        if len(text) <= 100:
            answer = alice.create(name=text)
            error = {"key": "name", "message": "required", "value": text}
            told = answer.status_code, answer.json["data"]["errors"]
            assert told == (400, [error])
    assert sql("SELECT count(*) FROM api_keys") == [(0,)]
    assert sql("SELECT count(*) FROM audit_events") == [(0,)]


SEEN = {
    "a letter": "a",
    "a digit": "0",
    "a dot": ".",
    "a hyphen": "-",
    "an underscore": "_",
    "spaces around": "  x  ",
    "an accent alone": "\u0301",
    "a letter and an accent": "e\u0301",
    "Chinese": "\u5bc6\u94a5",
    "Hangul": "\ud55c",
    "Hangul of jamo": "\u1112\u1161\u11ab",
    "Arabic": "\u0645\u0641\u062a\u0627\u062d",
    "Hebrew with marks around": "\u200f\u05de\u05e4\u05ea\u05d7\u200e",
    "Persian with a non-joiner": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "Devanagari with a joiner": "\u0915\u094d\u200d\u0937",
    "Thai": "\u0e01\u0e38\u0e0d",
    "Khmer": "\u1780\u17b6",
    "Mongolian": "\u182e\u180b\u1823",
    "Ogham": "\u1680\u1681",
    "Braille": "\u2801",
    "a snowman": "\u2603",
    "a heart in colour": "\u2764\ufe0f",
    "a digit in a box": "1\ufe0f\u20e3",
    "a family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "a flag": "\U0001f1e9\U0001f1ea",
    "Scotland's flag": "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074"
    "\U000e007f",
    "an ideograph and its variant": "\u845b\U000e0100",
    "a replacement character": "\ufffd",
    "mathematics": "\U0001d4d0",
    "zero width in the middle": "a\u200bb",
    "soft hyphens in the middle": "Schl\xadssel",
    "a byte order mark in front": "\ufeffx",
    "one in a hundred": "\u200b" * 99 + "x",
    "a line feed in it": "two\nlines",
    "private use": "\uf8ff",
    "an emoji of Unicode 15": "\U0001fae8",
    "an emoji of Unicode 16": "\U0001fae9",
    "an ideograph of Unicode 15": "\U00031350",
}


@pytest.mark.parametrize("name", SEEN.values(), ids=SEEN)
def test_a_name_with_something_to_see_is_kept_as_it_was_sent(alice, sql, name):
    """Whatever Unicode the Python here knows: a phone may know more."""
    key = alice.create(name=name)
    assert (key.status_code, key.json["data"]["name"]) == (201, name)
    [listed] = alice.call("GET", "/api/me/api-keys").json["data"]["api_keys"]
    assert listed["name"] == name
    assert sql("SELECT key_name FROM audit_events") == [(name,)]
    path = f"/api/me/api-keys/{listed['id']}"
    assert alice.call("DELETE", path).status_code == 200


def test_of_each_format_character_and_separator_none_is_a_name():
    """Those that Unicode calls so, but for the signs that stand before a number."""
    signs = {*range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD}
    for code in {*range(0x110000)} - signs:
        character = chr(code)
        if unicodedata.category(character) in ("Cc", "Cf", "Zs", "Zl", "Zp"):
            with pytest.raises(ValidationError, match="required"):
                visible(character)
