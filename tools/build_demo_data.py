"""Builds the demo's corpus and its sanity check from WordNet 3.0: the files under textcl/assets/wordnet.

    python tools/build_demo_data.py --wordnet nltk_data.tar.xz --output textcl/assets/wordnet

Synsets are split before anything is written: training texts come from a third of them, scored pairs from the others.
The same WordNet gives the same files, byte for byte.
"""

import argparse
import random
import re
import tarfile
from pathlib import Path
from typing import NamedTuple

LINES = 24_000  # about two minutes of training on two cores
PAIRS = {"n": 180, "v": 100}  # pairs per grade; the mix is always the same, so word class says nothing about the score
COMMON = "that with from have having which this these those their them they into when used using some such other being"

README = """# WordNet 3.0 data for the demo

Made by `tools/build_demo_data.py` from the data files of WordNet 3.0. Running it again writes the same bytes.

| file | what | count |
|---|---|---|
| `glosses.txt` | definitions and example sentences, one per line: the training texts of the demo | {lines:,} |
| `similarity.tsv` | `text1<TAB>text2<TAB>score`, no header: pairs of definitions, graded 0 to 4 | {pairs:,} |
| `LICENSE` | WordNet's licence, from the head of its data files; it must be distributed with them | |

The synsets of WordNet are shuffled (seed 0) and split in two before anything is written: `glosses.txt` comes from one
third of them, `similarity.tsv` from the others. No text is in both.

**Grades.** 4: two parts of one definition, most often two wordings of it (a semicolon separates them) · 3: a synset and
its hypernym · 2: two synsets with the same hypernym · 1: two synsets that share a grandparent but no parent · 0: two
synsets of different lexicographer files, such as `noun.animal` and `noun.feeling`. Each grade has {n} pairs of nouns
and {v} of verbs, a synset takes part in one pair only, and **no pair shares a content word** (first five letters of
words of four letters or more), so that counting common words is not enough.

**What it is for.** A sanity check, without STS data, that training improved the encoder. The demo shows a bag-of-words
baseline as well. Positions in a taxonomy are not human judgements of similarity, so these scores are not compared with
other scores, and no checkpoint or setting is selected by them.

**Transductive.** WordNet's glosses contain nearly all sentences of the STS subsets OnWN (STS12 to STS14) and FNWN
(STS13). An encoder trained on `glosses.txt` has seen some of them, without scores; textcl marks these subsets as
transductive in its results.

WordNet 3.0 Copyright 2006 by Princeton University. All rights reserved.
"""


class Synset(NamedTuple):
    key: str  # word class and byte offset, "n00001740"
    field: int  # lexicographer file, a rough topic
    parents: tuple[str, ...]  # hypernyms
    definitions: list[str]
    examples: list[str]


def read_wordnet(source: Path) -> tuple[dict[str, Synset], str]:
    """All synsets by key, and the licence, from a folder or an archive with WordNet's `data.*` files."""
    texts = {}
    if source.is_dir():
        texts = {path.name: path.read_text("utf-8") for path in source.rglob("data.*")}
    else:
        with tarfile.open(source) as archive:
            for member in archive:
                if Path(member.name).name.startswith("data.") and (file := archive.extractfile(member)):
                    texts[Path(member.name).name] = file.read().decode("utf-8")
    synsets, licence = {}, ""
    for name in ("data.noun", "data.verb", "data.adj", "data.adv"):
        lines = texts[name].splitlines()
        licence = "\n".join(line[4:].strip() for line in lines if line.startswith("  ")) + "\n"
        for line in lines:
            if not line.startswith("  "):
                synset = parse_synset(line)
                synsets[synset.key] = synset
    return synsets, licence


def parse_synset(line: str) -> Synset:
    """Parses one line of a data file; WordNet's manual page wndb(5) describes the format."""
    head, gloss = line.split(" | ", 1)
    fields = head.split(" ")
    word_class = "a" if fields[2] == "s" else fields[2]
    first = 4 + 2 * int(fields[3], 16)  # the index after the words, each with its lexical id
    pointers = [fields[first + 1 + 4 * i : first + 5 + 4 * i] for i in range(int(fields[first]))]
    parents = tuple(word_class + offset for symbol, offset, _, _ in pointers if symbol == "@")
    definition = re.sub(r"^\s*\([^)]*\)\s*", "", gloss.split('"')[0])  # without a leading "(botany)"
    parts = [part.strip(" :-") for part in definition.split(";")]
    return Synset(
        word_class + fields[0],
        int(fields[1]),
        parents,
        [part for part in parts if is_text(part)],
        [part for part in (example.strip() for example in re.findall(r'"([^"]+)"', gloss)) if is_text(part)],
    )


def is_text(text: str) -> bool:
    """Whether a text has 4 to 40 words, balanced brackets and no tab."""
    return 4 <= len(text.split()) <= 40 and text.count("(") == text.count(")") and "\t" not in text


def content(text: str) -> set[str]:
    """The approximate stems of a text's content words."""
    return {word[:5] for word in re.findall(r"[a-z]{4,}", text.lower())} - {word[:5] for word in COMMON.split()}


def split(synsets: dict[str, Synset]) -> tuple[dict[str, Synset], dict[str, Synset]]:
    """The synsets for training (a shuffled third) and the synsets for scored pairs (the rest)."""
    keys = sorted(synsets)
    random.Random(0).shuffle(keys)
    cut = len(keys) // 3
    return {key: synsets[key] for key in keys[:cut]}, {key: synsets[key] for key in keys[cut:]}


def is_statement(text: str, key: str) -> bool:
    """Whether a definition says what a thing is; "native to Brazil" and "the bark is used in medicine" do not."""
    words = text.split()
    return key[0] != "n" or (words[0] in ("a", "an", "the") and not {"is", "are", "was", "were"} & set(words))


def candidates(grade: int, key: str, synsets: dict[str, Synset], children: dict[str, list[str]]) -> list[str]:
    """The keys of all synsets that form a pair of this grade, 1 to 4, with the synset `key`."""
    synset = synsets[key]
    if grade == 4:
        return [key]
    if grade == 3:
        return list(synset.parents)
    sisters = [child for parent in synset.parents for child in children.get(parent, [])]
    if grade == 2:
        return [child for child in sisters if child != key]
    grandparents = [upper for parent in synset.parents if parent in synsets for upper in synsets[parent].parents]
    uncles = [uncle for upper in grandparents for uncle in children.get(upper, []) if uncle not in synset.parents]
    cousins = [cousin for uncle in uncles for cousin in children.get(uncle, [])]
    return [cousin for cousin in cousins if cousin not in sisters]


def build_pairs(synsets: dict[str, Synset], rng: random.Random) -> list[tuple[str, str, int]]:
    """Graded pairs of definitions. No synset is in two pairs, and no content word is on both sides of a pair."""
    children: dict[str, list[str]] = {}
    for key, synset in synsets.items():
        for parent in synset.parents:
            children.setdefault(parent, []).append(key)
    keys, used, pairs = list(synsets), set(), []
    rng.shuffle(keys)
    for word_class, count in PAIRS.items():
        pool = [key for key in keys if key[0] == word_class]
        for grade in (4, 3, 2, 1, 0):  # the rare grades first
            found = 0
            for key in pool:
                if found == count:
                    break
                if key in used or not synsets[key].definitions or not synsets[key].parents:
                    continue
                if grade == 0:
                    others = [other for other in rng.sample(pool, 9) if synsets[other].field != synsets[key].field]
                else:
                    others = candidates(grade, key, synsets, children)
                others = [other for other in others if other not in used]
                other = rng.choice(others) if others else None
                if other is None or other not in synsets or len(synsets[other].definitions) <= (grade == 4):
                    continue
                first, second = synsets[key].definitions[0], synsets[other].definitions[grade == 4]
                if is_statement(first, key) and is_statement(second, key) and not content(first) & content(second):
                    pairs.append((first, second, grade))
                    used |= {key, other}
                    found += 1
    rng.shuffle(pairs)
    return pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wordnet", type=Path, required=True, help="nltk_data.tar.xz, or a folder with data.noun")
    parser.add_argument("--output", type=Path, default=Path("textcl/assets/wordnet"))
    options = parser.parse_args()
    synsets, licence = read_wordnet(options.wordnet)
    trained, scored = split(synsets)
    pairs = build_pairs(scored, random.Random(1))
    reserved = {text for pair in pairs for text in pair[:2]}
    lines = [text for synset in trained.values() for text in synset.definitions + synset.examples]
    lines = [text for text in dict.fromkeys(lines) if text not in reserved][:LINES]
    options.output.mkdir(parents=True, exist_ok=True)
    files = {
        "glosses.txt": "\n".join(lines) + "\n",
        "similarity.tsv": "".join(f"{first}\t{second}\t{score}\n" for first, second, score in pairs),
        "LICENSE": licence,
        "README.md": README.format(lines=len(lines), pairs=len(pairs), **PAIRS),
    }
    for name, text in files.items():
        (options.output / name).write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
