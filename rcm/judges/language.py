"""What is no language, by rules that no judge may overrule: empty, looping or garbled completions are invalid.

The rules know letters, not English: an answer in another language or in code is language.
"""

import re
import unicodedata
from collections import Counter
from functools import cache
from itertools import pairwise

from rcm.packaged import located

LOOP_WORDS = 8  # fewer are too short for a loop to show in their trigrams
LEAST_DISTINCT = 0.5  # of the word trigrams; unsteered answers lie at 0.91 to 0.97, looping ones below 0.2
LEAST_PAIRS = 12  # of letters, before rare ones among them mean anything
# Of letters drawn at random half of the pairs are rare in English, and 0.23 are vowels. Of fluent English at most 0.11
# of the pairs are rare; of other languages in Latin letters up to 0.42, the more the more vowels they have (Zulu 0.47).
RARE, MOST_RARE, FEW_VOWELS, FOR_VOWELS = 1e-4, 0.2, 0.27, 1.3

SALAD_WORDS = 15  # fewer may well be names
# The commonest words of two letters and more in languages with Latin letters.
JOINING_WORDS = """
the of and to in is for you it that with on as are this be or your can not have at from an by if we they will do
de la le les des et que en un una une el los las por con para se es est pour dans qui ne pas vous di il che non per
der die das und ist ein eine zu den nicht mit von sie ich auf het een van niet dat na nie jest det och att som ikke
er og til av ett yang dan ini untuk bir ve bu da nao uma os em je si va
"""
JOINING = frozenset(JOINING_WORDS.split())


def degenerate(completion: str) -> bool:
    """Whether a completion is not language: no letters, one word (or part of one) over and over, a loop, or garbled.

    Distinct trigrams were measured on completions that Arditi et al. (2024) published.
    """
    return not any(character.isalpha() for character in completion) or loops(completion) or garbled(completion)


def loops(completion: str) -> bool:
    """Whether it says the same over and over."""
    words = re.findall(r"\w+", completion.lower())
    if len(words) < LOOP_WORDS:
        stuck = re.search(r"([^\W\d_]+?)\1{7,}", completion)  # eight times in a row, without spaces
        return bool(stuck) or (len(words) >= 4 and max(Counter(words).values()) > len(words) / 2)
    trigrams = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(trigrams)) < LEAST_DISTINCT * len(trigrams)


def garbled(completion: str) -> bool:
    """Whether its characters make no words: broken encoding, symbols, letters at random, or a mixture of scripts."""
    visible = [character for character in completion if not character.isspace()]
    letters = [character for character in visible if character.isalpha()]
    broken = sum(
        unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs") or character == "\ufffd" for character in visible
    )
    if broken > 0.05 * len(visible) or len(letters) < 0.3 * len(visible):
        return True
    return _many_rare_pairs(completion) or _many_scripts(letters) or _many_seams(completion)


def _many_rare_pairs(completion: str) -> bool:
    """Whether its Latin letters, without their accents, are in an order that no language has."""
    plain = unicodedata.normalize("NFKD", completion.lower())
    words = re.findall(r"[a-z]+", "".join(one for one in plain if not unicodedata.combining(one)))
    pairs = [a + b for word in words for a, b in pairwise(word)]
    if len(pairs) < LEAST_PAIRS:
        return False
    rare = sum(pair not in _common_pairs() for pair in pairs) / len(pairs)
    vowels = sum(letter in "aeiouy" for word in words for letter in word) / sum(map(len, words))
    return rare > MOST_RARE + FOR_VOWELS * max(0.0, vowels - FEW_VOWELS)


@cache
def _common_pairs() -> frozenset[str]:
    """Pairs of letters that are not rare in the prompts that rcm ships."""
    text = located("packaged:pairs.jsonl").read_text(encoding="utf-8").lower()
    counts = Counter(a + b for word in re.findall(r"[a-z]+", text) for a, b in pairwise(word))
    return frozenset(pair for pair, count in counts.items() if count >= RARE * counts.total())


def _many_scripts(letters: list[str]) -> bool:
    """Six scripts, or three with a tenth of the letters each; Japanese alone has three, and they go together."""
    of = Counter(unicodedata.name(letter, "?").split()[0] for letter in letters)
    asian = ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL")
    shares = [count for script, count in of.items() if script not in asian]
    shares.append(sum(count for script, count in of.items() if script in asian))
    return len(shares) > 5 or sum(count > 0.1 * len(letters) for count in shares) >= 3


def _many_seams(completion: str) -> bool:
    """Whether words are stuck together, as in `ofWar`, and hardly one of them is a word that joins others: what
    sampling tokens at random gives. Code joins words by symbols."""
    words = re.findall(r"[^\W\d_]{2,}", completion)
    seams = sum(re.search(r"[a-z][A-Z]", word) is not None for word in words)
    joining = sum(word.lower() in JOINING for word in words)
    symbols = sum(character in "(){}[]=;<>_" for character in completion)
    scarce = len(words) >= SALAD_WORDS and joining < 0.05 * len(words) and symbols < 0.05 * len(completion)
    return scarce and seams > 0.04 * len(words)
