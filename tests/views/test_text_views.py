"""Text views: what they change and how much, the same draws everywhere, WordNet, nlpaug's mends, the cache on disk."""

import functools
import json
import random
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from support.command import python
from support.tiny import TEXTS, tiny_encoder_directory, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedTokenizerFast, T5Config

from textcl.cli.data import main as data_command
from textcl.data import verify
from textcl.encoder.load import BUNDLED
from textcl.errors import InputError
from textcl.views import text as text_views
from textcl.views import wordnet
from textcl.views.text import TEXT_VIEWS, augment
from textcl.views.tokens import TokenRows
from textcl.views.view import parse_view

PLAIN = ("deletion", "swap", "crop", "character_noise")  # need neither a lexicon nor a model
ODD = ["", " ", "...", "?!", "word", "(word)", "  two   words ", "x, y", "Ünïcode — naïve façade…", "日本語"]
LONG = [" ".join(f"word{row}x{i}" for i in range(50)) for row in range(400)]


@pytest.fixture(scope="module")
def lexicon(lexicons: Path) -> Iterator[Path]:
    """The data directory with WordNet and the tagger, and no other place where NLTK looks."""
    import nltk.data

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEXTCL_DATA", str(lexicons))
        patch.setattr(nltk.data, "path", [])
        yield lexicons


@pytest.fixture(scope="module")
def mlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_encoder_directory(tmp_path_factory.mktemp("mlm") / "model")


@pytest.fixture(scope="module")
def translators(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two random T5 models, there and back."""
    folders = []
    for seed in range(2):
        tokenizer = tiny_tokenizer()
        torch.manual_seed(seed)
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
        ids = {"pad_token_id": 1, "decoder_start_token_id": 1, "eos_token_id": 2}
        config = T5Config(vocab_size=len(tokenizer), **sizes, **ids, tie_word_embeddings=False)
        folder = tmp_path_factory.mktemp("translators") / "model"
        network = AutoModelForSeq2SeqLM.from_config(config)
        with torch.no_grad():  # wide enough for what it writes to depend on what it reads
            for weight in network.parameters():
                weight.mul_(3)
        network.save_pretrained(folder)
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
        tokenizer.save_pretrained(folder)
        folders.append(folder)
    return folders[0], folders[1]


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


# without WordNet; these come first, before anything has read it


def test_missing_wordnet_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nltk.data

    wordnet._reader.cache_clear()
    wordnet._synonyms.cache_clear()
    monkeypatch.delenv("NLTK_DATA", raising=False)
    monkeypatch.setenv("TEXTCL_DATA", str(tmp_path))
    monkeypatch.setattr(nltk.data, "path", [])
    command = r"corpora/wordnet is not on this machine.*`textcl data import nltk_data\.tar\.xz`"
    for look_up in (
        lambda: wordnet.synonyms("huge"),
        lambda: wordnet.synonym_table(tiny_tokenizer()),
        lambda: TEXT_VIEWS["synonyms"](TEXTS[:2], rate=1.0),
        lambda: TEXT_VIEWS["nlpaug_synonyms"](TEXTS[:2]),
    ):
        with pytest.raises(InputError, match=command):
            look_up()


def test_missing_nltk_names_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    wordnet._reader.cache_clear()
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(InputError, match="pip install nltk"):
        wordnet.require("corpora/wordnet")


def test_wordnet_behind_links_says_that_files_are_needed(
    lexicon: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "from textcl.views import wordnet; wordnet.synonyms('huge')"
    folder = tmp_path / "nltk_data" / "corpora" / "wordnet"
    folder.mkdir(parents=True)
    for file in (lexicon / "nltk_data" / "corpora" / "wordnet").iterdir():
        (folder / file.name).symlink_to(file)
    run = python(code, TEXTCL_DATA=str(tmp_path), NLTK_DATA="", HOME=str(tmp_path))
    assert "InputError: WordNet cannot be read; all its files must be present, and none may be a link" in run.stderr


# WordNet


def test_the_catalogue_imports_verifies_and_never_fetches_lexicons(
    shared_data: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["WordNet", "PerceptronTagger"]
    lexicon = tmp_path_factory.mktemp("lexicon")
    data_command(["import", str(shared_data / "nltk_data.tar.xz"), "--data-dir", str(lexicon)])
    assert [status.state for status in verify(lexicon, names)] == ["ok", "ok"]
    assert [status.state for status in verify(tmp_path, names)] == ["missing", "missing"]
    data_command(["list", "--data-dir", str(lexicon)])
    assert re.search(r"\| WordNet +\| lexicon +\| +\| ok +\|", capsys.readouterr().out)
    with pytest.raises(InputError, match=r"WordNet cannot be fetched.*no public address.*`textcl data import FILE`"):
        data_command(["fetch", "wordnet", "--data-dir", str(tmp_path)])
    (lexicon / "nltk_data" / "corpora" / "wordnet" / "adv.exc").unlink()
    assert verify(lexicon, ["WordNet"])[0].state == "incomplete"


def oracle(word: str, folder: Path) -> tuple[set[str], dict[str, int]]:
    """Synonyms and their counts, read from WordNet's files as its manual page wndb(5) describes them."""
    found: set[str] = set()
    counts: dict[str, int] = {}
    keys = [line.split() for line in (folder / "cntlist.rev").read_text().splitlines()]
    senses = {key: int(count) for key, _, count in keys}
    of_offset: dict[tuple[str, str], list[str]] = {}  # (class, synset) -> sense keys
    for line in (folder / "index.sense").read_text().splitlines():
        key, offset = line.split()[:2]
        of_offset.setdefault((key.split("%")[1][0], offset), []).append(key)
    for name, kinds in (("noun", "1"), ("verb", "2"), ("adj", "35"), ("adv", "4")):
        data = (folder / f"data.{name}").read_bytes()
        for line in (folder / f"index.{name}").read_text().splitlines():
            if line.startswith(f"{word} "):
                fields = line.split()
                for offset in fields[-int(fields[2]) :]:
                    start = int(offset)
                    synset = data[start : data.index(b"\n", start)].decode().split(" ")
                    lemmas = [lemma.split("(")[0].lower() for lemma in synset[4 : 4 + 2 * int(synset[3], 16) : 2]]
                    found |= {lemma for lemma in lemmas if "_" not in lemma and lemma != word}
                    for kind in kinds:
                        for key in of_offset.get((kind, offset), []):
                            lemma = key.split("%")[0]
                            counts[lemma] = counts.get(lemma, 0) + senses.get(key, 0)
    return found, counts


def test_synonyms_are_those_in_wordnets_files_most_frequent_first(lexicon: Path) -> None:
    assert wordnet.synonyms("huge") == ["vast", "immense", "brobdingnagian"]
    for word in ("huge", "car", "quick", "doctor", "sleep"):
        expected, counts = oracle(word, lexicon / "nltk_data" / "corpora" / "wordnet")
        names = wordnet.synonyms(word)
        assert sorted(names) == sorted(expected)
        assert [counts[name] for name in names] == sorted((counts[name] for name in names), reverse=True)
    assert "hound" in wordnet.synonyms("dogs")  # found under its base form
    assert wordnet.synonyms("Huge") == wordnet.synonyms("huge")
    assert wordnet.synonyms("qwertz") == []


def tokenizer_of(kind: str) -> tuple[PreTrainedTokenizerFast, str, str]:
    """A tokenizer whose vocabulary is written out, and its marks of a token that begins and one that continues."""
    begins, goes_on = {"wordpiece": ("", "##"), "bpe": ("Ġ", ""), "sentencepiece": ("▁", "")}[kind]
    whole = ["huge", "vast", "immense", "in", "Huge", "Vast", "zzz", "dog"]
    vocabulary = ["[UNK]", "[MASK]", *(begins + word for word in whole), *(goes_on + part for part in ("vast", "ly"))]
    vocabulary += [",", begins + "-"] + ([] if kind == "wordpiece" else ["##", begins])
    vocabulary += {"bpe": ["ĠcafÃ©", "Ã©", "Ã", "âĢĶ"], "sentencepiece": ["▁café", "é", "—"]}.get(
        kind, ["café", "##é", "—"]
    )
    ids = {token: index for index, token in enumerate(dict.fromkeys(vocabulary))}
    model = models.WordPiece(ids, unk_token="[UNK]") if kind == "wordpiece" else models.BPE(ids, [], unk_token="[UNK]")
    tokenizer = Tokenizer(model)
    tokenizer.decoder = {
        "wordpiece": decoders.WordPiece(),
        "bpe": decoders.ByteLevel(),
        "sentencepiece": decoders.Metaspace(),
    }[kind]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", mask_token="[MASK]")
    return fast, begins, goes_on


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "sentencepiece"])
def test_the_table_has_synonyms_that_are_tokens_of_the_vocabulary(lexicon: Path, kind: str) -> None:
    tokenizer, begins, goes_on = tokenizer_of(kind)
    ids = tokenizer.get_vocab()
    table, count = wordnet.synonym_table(tokenizer, most=3)
    assert table.shape == (len(ids), 3)
    assert table.dtype == count.dtype == torch.int64

    def row(token: str) -> list[str]:
        return [tokenizer.convert_ids_to_tokens(int(i)) for i in table[ids[token], : count[ids[token]]]]

    assert row(begins + "huge") == [begins + "vast", begins + "immense"]
    assert row(begins + "Huge") == [begins + "Vast"]
    assert table[ids[begins + "huge"], 2] == ids[begins + "huge"]  # its own where there are no more
    assert wordnet.synonym_table(tokenizer, most=1)[1].max() == 1
    without = [goes_on + "vast", begins + "in", begins + "zzz", ",", "[MASK]"]
    assert [int(count[ids[token]]) for token in without] == [0] * len(without)

    going_on = {token for token, index in ids.items() if wordnet.continues(tokenizer)[index]}
    accents = {"wordpiece": {"##é"}, "bpe": {"Ã©", "Ã"}, "sentencepiece": {"é"}}[kind]
    assert going_on == {goes_on + "vast", goes_on + "ly"} | accents
    written = set(wordnet.whole_words(tokenizer).values())
    assert written == {"huge", "vast", "immense", "in", "Huge", "Vast", "zzz", "dog", "café"}


def test_the_token_view_by_name_finds_its_table_here(lexicon: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(BUNDLED)
    (operator,) = parse_view("substitution:1.0", tokenizer).token_operators
    words = ["the", "huge", "doctor", "buys", "in"]
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(words)])
    there = torch.ones_like(ids, dtype=torch.bool)
    rows = operator(TokenRows(ids, there, there, tokenizer.pad_token_id), lambda count: torch.zeros(1, count).double())
    new = tokenizer.convert_ids_to_tokens(rows.ids[0])
    assert new[1:3] == ["vast", wordnet.synonyms("doctor")[0]]
    assert (new[0], new[4]) == ("the", "in")


# what the views change, and how much


def test_a_rate_of_zero_changes_nothing(lexicon: Path, mlm: Path) -> None:
    for name, function in TEXT_VIEWS.items():
        if name != "back_translation":
            model = {"model": mlm} if "contextual" in name else {}
            assert function([*ODD, *TEXTS[:3]], rate=0.0, **model) == [*ODD, *TEXTS[:3]], name


@pytest.mark.parametrize("name", [*PLAIN, "synonyms", "nlpaug_synonyms"])
def test_no_text_becomes_empty(lexicon: Path, name: str) -> None:
    views = TEXT_VIEWS[name](ODD, rate=1.0)
    assert len(views) == len(ODD)
    assert [bool(view.strip()) for view in views] == [bool(text.strip()) for text in ODD]
    if name == "deletion":
        assert views[:6] == ODD[:6]
        assert words(views[6])[0] in ("two", "words")


def test_deletion_meets_its_rate_and_keeps_the_order() -> None:
    views = TEXT_VIEWS["deletion"](LONG, rate=0.2)
    gone = 1 - sum(len(words(view)) for view in views) / 20_000
    assert gone == pytest.approx(0.2, abs=4 * (0.2 * 0.8 / 20_000) ** 0.5)
    for view, text in zip(views, LONG, strict=True):
        assert [word for word in text.split() if word in set(view.split())] == view.split(" ")
    texts = ["One, two (three); four."] * 40
    views = {view for number in range(30) for view in TEXT_VIEWS["deletion"](texts[:1], rate=0.3, view=number)}
    assert {"One, (three); four.", "One, two (); four.", "One, two (three);."} <= views
    assert not [view for view in views if "  " in view or view != view.strip()]
    left = [view for number in range(60) for view in TEXT_VIEWS["deletion"](["a b c d"], rate=1.0, view=number)]
    assert set(left) == {"a", "b", "c", "d"}, "the one word that is left may be any"


def test_swap_moves_its_share_of_words_by_one_place() -> None:
    views = TEXT_VIEWS["swap"](LONG, rate=0.3)
    moved = 0
    for view, text in zip(views, LONG, strict=True):
        places = [text.split().index(word) for word in view.split()]
        assert sorted(places) == list(range(50))
        assert all(abs(place - i) <= 1 for i, place in enumerate(places))
        moved += sum(place != i for i, place in enumerate(places))
    assert moved / 20_000 == pytest.approx(0.3, abs=0.02)
    assert TEXT_VIEWS["swap"](["One, two; three!"], rate=1.0) == ["two, One; three!"]


def test_crop_keeps_a_span_of_the_right_length_from_anywhere() -> None:
    starts = []
    for view, text in zip(TEXT_VIEWS["crop"](LONG, rate=0.6), LONG, strict=True):
        assert f" {view} " in f" {text} "
        assert len(view.split()) == 20
        starts.append(text.split().index(view.split()[0]))
    assert (min(starts), max(starts)) == (0, 30)
    assert np.mean(starts) == pytest.approx(15, abs=4 * 9 / 20)  # uniform on 0 … 30
    spans = {view for number in range(30) for view in TEXT_VIEWS["crop"](['"One, two; three!"'], rate=0.3, view=number)}
    assert spans == {'"One, two', 'two; three!"'}


def test_synonyms_meet_their_rate_keep_spaces_and_capitals(lexicon: Path) -> None:
    text = "A Huge  dog ,  and the  HUGE dog ( in a huge house ) ."
    texts = [f"{text} {row}" for row in range(2000)]
    views = TEXT_VIEWS["synonyms"](texts, rate=0.2)
    changed = 0
    for view, original in zip(views, texts, strict=True):
        assert re.findall(r"\s+", view) == re.findall(r"\s+", original)
        for new, old in zip(view.split(), original.split(), strict=True):
            if new != old:
                assert new.lower() in wordnet.synonyms(old)[: wordnet.MOST]
                assert (new.isupper(), new[0].isupper()) == (old.isupper(), old[0].isupper())
                changed += 1
    assert changed / (6 * 2000) == pytest.approx(0.2, abs=0.015)  # Huge, dog, HUGE, dog, huge, house
    stop_words_stay = "a the in and"
    assert TEXT_VIEWS["synonyms"]([stop_words_stay], rate=1.0) == [stop_words_stay]
    choices = {view.split()[1] for view in views} - {"Huge"}
    assert choices == {"Vast", "Immense", "Brobdingnagian"}


def test_contextual_replaces_its_share_of_words_by_words_of_the_vocabulary(mlm: Path) -> None:
    views = TEXT_VIEWS["contextual"](TEXTS, model=mlm, rate=0.3)
    vocabulary = set(wordnet.whole_words(AutoTokenizer.from_pretrained(mlm)).values())
    changed = total = 0
    for view, text in zip(views, TEXTS, strict=True):
        new = [(a, b) for a, b in zip(view.split(" "), text.split(" "), strict=True) if a != b]
        assert {a for a, _ in new} <= vocabulary
        changed, total = changed + len(new), total + len(words(text))
    assert changed / total == pytest.approx(0.3, abs=4 * (0.21 / total) ** 0.5)
    for view, text in zip(TEXT_VIEWS["contextual"](TEXTS, model=mlm, rate=1.0), TEXTS, strict=True):
        assert not [a for a, b in zip(view.split(" "), text.split(" "), strict=True) if a == b]
    (view,) = TEXT_VIEWS["contextual"](["The ,  door !"], model=mlm, rate=1.0)
    assert re.fullmatch(r"[A-Z]\w* ,  [a-z]+ !", view)
    (view,) = TEXT_VIEWS["contextual"](["door " * 100], model=mlm, rate=1.0)
    assert 0 < view.split().count("door") < 50  # words behind the longest input stay
    assert TEXT_VIEWS["contextual"](["[MASK] door"], model=mlm, rate=1.0) == ["[MASK] door"]


def test_a_text_is_cut_at_the_positions_of_roberta(tmp_path: Path) -> None:
    """They start behind the padding token's; this tokenizer names no limit of its own."""
    folder = tiny_encoder_directory(tmp_path / "roberta", "roberta")
    tokenizer = tiny_tokenizer()
    tokenizer.model_max_length = 10**30
    tokenizer.save_pretrained(folder)
    (view,) = TEXT_VIEWS["contextual"](["door " * 100], model=folder, rate=1.0)
    assert 0 < view.split().count("door") < 50


def test_contextual_draws_the_words_that_the_model_expects(mlm: Path) -> None:
    """With one candidate it is the model's best word, computed here from its logits."""
    from transformers import AutoModelForMaskedLM

    network, tokenizer = AutoModelForMaskedLM.from_pretrained(mlm), AutoTokenizer.from_pretrained(mlm)
    inputs = tokenizer("the old [MASK] mends a small boat", return_tensors="pt")
    place = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    scores = network(**inputs).logits[0, place]
    allowed = {index: word for index, word in wordnet.whole_words(tokenizer).items() if word != "sailor"}
    best = max(allowed, key=lambda index: float(scores[index].detach()))
    views = set()
    for number in range(40):
        views |= set(
            TEXT_VIEWS["contextual"](["the old sailor mends a small boat"], model=mlm, rate=0.1, view=number, top_k=1)
        )
    assert f"the old {allowed[best]} mends a small boat" in views
    assert len({view.split()[2] for view in views if re.fullmatch(r"the old \w+ mends a small boat", view)}) == 2
    many = {TEXT_VIEWS["contextual"](["sailor"], model=mlm, rate=0.3, view=number, top_k=3)[0] for number in range(120)}
    assert len(many - {"sailor"}) == 3


def test_contextual_insertion_leaves_the_text_in_place(mlm: Path) -> None:
    views = TEXT_VIEWS["contextual_insertion"](TEXTS, model=mlm, rate=0.3)
    inserted = 0
    for view, text in zip(views, TEXTS, strict=True):
        rest = iter(view.split(" "))
        assert all(word in rest for word in text.split(" "))  # a subsequence
        inserted += len(view.split(" ")) - len(text.split(" "))
    total = sum(len(words(text)) for text in TEXTS)
    assert inserted / total == pytest.approx(0.3, abs=4 * (0.21 / total) ** 0.5)


def test_a_model_without_a_masked_word_head_is_refused(mlm: Path, tmp_path: Path) -> None:
    from transformers import AutoModel

    AutoModel.from_pretrained(mlm).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(mlm).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="has no masked-word head"):
        TEXT_VIEWS["contextual"](TEXTS[:2], model=tmp_path)
    with pytest.raises(InputError, match=r"nowhere cannot be loaded: "):
        TEXT_VIEWS["contextual"](TEXTS[:2], model=tmp_path / "nowhere")


# nlpaug


@pytest.mark.parametrize("kind", ["keyboard", "random"])
def test_character_noise_mistypes_its_share_of_words(kind: str) -> None:
    text = "Neighbours ,  however ( always ) complain  about nothing ; surely ."
    changed = 0
    for number in range(60):
        (view,) = TEXT_VIEWS["character_noise"]([text], rate=0.25, view=number, kind=kind)
        assert re.findall(r"\s+", view) == re.findall(r"\s+", text)
        assert len(view) == len(text)
        new = [b for a, b in zip(view.split(), text.split(), strict=True) if a != b]
        assert len(new) <= 2  # ⌈0.25 · 7⌉
        assert all(len(words(word)) == 1 for word in new)
        changed += len(new)
    assert changed >= 115
    with pytest.raises(InputError, match="no character noise 'keybord'"):
        TEXT_VIEWS["character_noise"]([text], kind="keybord")


def test_nlpaugs_contextual_view_needs_the_mend(mlm: Path) -> None:
    from nlpaug.augmenter.word import ContextualWordEmbsAug

    with pytest.raises(AttributeError, match="_convert_token_to_id"):
        ContextualWordEmbsAug(str(mlm), "bert")
    views = TEXT_VIEWS["nlpaug_contextual"](TEXTS[:8], model=mlm, rate=0.3)
    assert all(view != text for view, text in zip(views, TEXTS[:8], strict=True))
    assert set(words(" ".join(views))) <= {
        token.lstrip("#") for token in AutoTokenizer.from_pretrained(mlm).get_vocab()
    }
    with pytest.raises(AttributeError):  # nlpaug itself is as it was
        ContextualWordEmbsAug(str(mlm), "bert")


def test_nlpaugs_contextual_view_tells_models_of_one_name_apart(mlm: Path, tmp_path: Path) -> None:
    other = tiny_encoder_directory(tmp_path / mlm.name, seed=1)
    view = functools.partial(TEXT_VIEWS["nlpaug_contextual"], TEXTS[:8], rate=0.3)
    first = view(model=mlm)
    assert view(model=other) != first
    with pytest.raises(InputError, match=r"model is of type mpnet.*'contextual', which takes any"):
        view(model=tiny_encoder_directory(tmp_path / "mpnet" / "model", "mpnet"))


def test_nlpaug_leaves_the_global_generators_alone(lexicon: Path, mlm: Path, translators: tuple[Path, Path]) -> None:
    def state() -> tuple:
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    for number, (name, options) in enumerate(
        (
            ("character_noise", {}),
            ("nlpaug_synonyms", {}),
            ("nlpaug_contextual", {"model": mlm}),
            ("back_translation", {"model": translators[0], "back_model": translators[1], "max_length": 8}),
        )
    ):
        random.seed(number), np.random.seed(number), torch.manual_seed(number)
        before = state()
        first = TEXT_VIEWS[name](TEXTS[:2], **options)
        assert state() == before, name
        random.seed(77), np.random.seed(77), torch.manual_seed(77)
        assert TEXT_VIEWS[name](TEXTS[:2], **options) == first, name


def test_back_translation_goes_there_and_back(translators: tuple[Path, Path]) -> None:
    texts = expected = TEXTS[::12]
    for folder in translators:
        network, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        ids = network.generate(**tokenizer(expected, padding=True, return_tensors="pt"), max_length=10)
        expected = tokenizer.batch_decode(ids, skip_special_tokens=True)
    model, back_model = translators
    views = TEXT_VIEWS["back_translation"](
        [*texts[:2], "", *texts[2:]], model=model, back_model=back_model, max_length=10
    )
    assert views == [*expected[:2], "", *expected[2:]]
    assert len(set(expected)) > 1
    assert views[0] != texts[0]


def test_back_translation_sees_that_a_model_has_changed(translators: tuple[Path, Path], tmp_path: Path) -> None:
    view = functools.partial(
        TEXT_VIEWS["back_translation"], TEXTS[:2], model=translators[0], back_model=tmp_path / "model", max_length=10
    )
    views = []
    for folder in translators:
        shutil.rmtree(tmp_path / "model", ignore_errors=True)  # not written over: loaded weights are mapped to the file
        shutil.copytree(folder, tmp_path / "model")
        views.append(view())
    assert views[0] != views[1]


def test_models_that_nlpaug_cannot_load_are_named(mlm: Path, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    with pytest.raises(InputError, match="nowhere cannot be loaded: "):
        TEXT_VIEWS["nlpaug_contextual"](TEXTS[:2], model=nowhere)
    with pytest.raises(InputError, match=r"nowhere, or .*model, cannot be loaded: "):
        TEXT_VIEWS["back_translation"](TEXTS[:2], model=nowhere, back_model=mlm)


# the same draws everywhere


def test_a_view_depends_on_its_text_seed_and_number_alone(lexicon: Path, mlm: Path) -> None:
    texts = TEXTS[::7][:12]
    for name, function in TEXT_VIEWS.items():
        if name == "back_translation":
            continue
        options = {"model": mlm} if "contextual" in name else {}
        view = functools.partial(function, rate=0.4, **options)
        together = view(texts)
        assert view([TEXTS[1], *texts[::-1]])[:0:-1] == together, name  # other company, other order
        assert [view([text])[0] for text in texts[:4]] == together[:4], name
        assert view([texts[0]] * 2) == together[:1] * 2, name
        assert view(texts, view=1) != together, name
        assert view(texts, seed=43) != together, name


def test_another_process_draws_the_same_and_reads_the_cache(mlm: Path, tmp_path: Path) -> None:
    code = (
        "import json, sys; from datasets import Dataset; from textcl.views.text import TEXT_VIEWS, augment;"
        "texts, names, model, cache = json.loads(sys.argv[1]); texts.reverse();"
        "views = {n: TEXT_VIEWS[n](texts, rate=0.4)[::-1] for n in names};"
        "views['contextual'] = TEXT_VIEWS['contextual'](texts, rate=0.4, model=model)[::-1];"
        "texts.reverse(); dataset = Dataset.from_dict({'text': texts}); augment(dataset, 'swap', cache_dir=cache);"
        "augment(dataset, 'crop', cache_dir=cache + '-new');"
        "print(json.dumps(views))"
    )
    texts = TEXTS[:20]
    augment(Dataset.from_dict({"text": texts}), "swap", cache_dir=tmp_path)
    before = [(file.name, file.stat().st_mtime_ns) for file in tmp_path.iterdir()]
    given = json.dumps([texts, PLAIN, str(mlm), str(tmp_path)])
    run = python(code, given)
    there = json.loads(run.stdout)
    for name in PLAIN:
        assert there[name] == TEXT_VIEWS[name](texts, rate=0.4), name
    assert there["contextual"] == TEXT_VIEWS["contextual"](texts, rate=0.4, model=mlm)
    assert [(file.name, file.stat().st_mtime_ns) for file in tmp_path.iterdir()] == before
    assert not run.stderr  # no bars where nobody looks


# augment


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the views that were computed since the last look."""
    seen: list[str] = []

    def counted(name: str, function):
        @functools.wraps(function)
        def wrapper(*args, **options):
            seen.append(name)
            return function(*args, **options)

        return wrapper

    for name, function in TEXT_VIEWS.items():
        monkeypatch.setitem(TEXT_VIEWS, name, counted(name, function))
    return seen


def test_augment_adds_columns_and_reads_them_back(tmp_path: Path, calls: list[str]) -> None:
    dataset = Dataset.from_dict({"text": TEXTS[:50], "other": list(range(50))})
    first = augment(dataset, "deletion", copies=3, rate=0.3, cache_dir=tmp_path)
    assert first.column_names == ["text", "other", "text_1", "text_2", "text_3"]
    assert first["text"][:] == TEXTS[:50]
    for number in (1, 2, 3):
        assert first[f"text_{number}"][:] == text_views.deletion(TEXTS[:50], rate=0.3, view=number)
    assert len(set(first[0].values())) == 5
    assert len(list(tmp_path.glob("*.arrow"))) == 1

    calls.clear()
    again = augment(dataset, "deletion", copies=3, rate=0.3, cache_dir=tmp_path)
    assert calls == []
    assert again.to_dict() == first.to_dict()
    same_texts = Dataset.from_dict({"text": TEXTS[:50], "other": list(range(50))})
    augment(same_texts, "deletion", copies=3, rate=0.3, cache_dir=tmp_path, batch_size=7)
    assert calls == []

    for number, (changed, options) in enumerate(
        (
            (dataset, {"seed": 43, "copies": 3, "rate": 0.3}),
            (dataset, {"copies": 3, "rate": 0.4}),
            (dataset, {"copies": 2, "rate": 0.3}),
            (dataset.select(range(49)), {"copies": 3, "rate": 0.3}),
        ),
        2,
    ):
        calls.clear()
        other = augment(changed, "deletion", cache_dir=tmp_path, **options)
        assert set(calls) == {"deletion"}
        assert other.to_dict() != first.to_dict()
        assert len(list(tmp_path.glob("*.arrow"))) == number


def test_augment_keeps_its_results_in_the_cache_folder_of_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: list[str]
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    dataset = Dataset.from_dict({"text": TEXTS[:4]})
    augment(dataset, "crop")
    assert sorted(path.suffix for path in tmp_path.rglob("*") if path.is_file()) == [".arrow", ".json"]
    calls.clear()
    augment(dataset, "crop")
    assert calls == []


def test_augment_sees_that_a_model_has_changed(tmp_path: Path, calls: list[str]) -> None:
    dataset = Dataset.from_dict({"text": TEXTS[:10]})
    rows = []
    for seed in (0, 1):
        tiny_encoder_directory(tmp_path / "model", seed=seed)
        calls.clear()
        rows.append(augment(dataset, "contextual", model=tmp_path / "model", rate=0.5, cache_dir=tmp_path / "cache"))
        assert calls
    assert rows[0].to_dict() != rows[1].to_dict()
    calls.clear()
    augment(dataset, "contextual", model=str(tmp_path / "model"), rate=0.5, cache_dir=tmp_path / "cache")
    assert calls == []


def test_augment_without_draws_or_rate(translators: tuple[Path, Path], tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"text": TEXTS[::12]})
    model, back_model = translators
    options = {"model": model, "back_model": back_model, "max_length": 10}
    rows = augment(dataset, "back_translation", cache_dir=tmp_path, **options)
    assert rows["text_1"][:] == rows["text_2"][:] == TEXT_VIEWS["back_translation"](TEXTS[::12], **options)


def test_what_augment_refuses(tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"text": TEXTS[:2]})
    for arguments, options, message in (
        ((dataset, "synonymes"), {}, r"no text view 'synonymes'.*Did you mean 'synonyms'\?"),
        ((dataset, "deletion"), {"rate": 1.5}, "from 0 to 1, not 1.5"),
        ((dataset, "character_noise"), {"rate": -0.1}, "from 0 to 1, not -0.1"),
        ((dataset, "deletion"), {"model": "x"}, "'deletion' has no option 'model'"),
        ((dataset, "contextual"), {"model": "x", "top_l": 3}, r"no option 'top_l'\. Did you mean 'top_k'\?"),
        ((dataset, "back_translation"), {"model": "x", "rate": 0.1}, "no option 'rate'"),
        ((dataset, "contextual"), {}, "'contextual' needs 'model'"),
        ((Dataset.from_dict({"sentence": ["a"]}), "swap"), {}, "The dataset needs a column 'text'"),
    ):
        with pytest.raises(InputError, match=message):
            augment(*arguments, cache_dir=tmp_path, **options)
    assert list(tmp_path.iterdir()) == []  # nothing half-written stays either
