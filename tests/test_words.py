"""Words of scripts with and without spaces, and what is made of them: search, duplicates, keywords, views, queries."""

import numpy as np
import pytest

from textcl.adaptation.corpus import read_corpus
from textcl.adaptation.known_items import halves, known_items
from textcl.evaluation.baselines import TfidfEncoder
from textcl.evaluation.label_free import CRITERIA, LabelFree
from textcl.vectors.bm25 import Bm25
from textcl.vectors.near_duplicates import near_duplicate_groups
from textcl.vectors.planted_edits import KINDS, edit
from textcl.vectors.topics import keywords_and_names
from textcl.views.words import crop, deletion, swap
from textcl.words import count_words, join_words, pieces_of, split_words, with_spaces, words_of

# questions of customers, in Chinese and Japanese, with the question that they are a variant of
CHINESE = {
    "如何重置我的密码": "密码怎么重置",
    "订单什么时候可以发货": "什么时候发货",
    "怎样取消已经付款的订单": "取消付款订单",
    "退款需要等多长时间": "多久退款",
    "可以修改收货地址吗": "修改地址",
    "发票应该在哪里下载": "下载发票",
}
JAPANESE = {
    "パスワードを忘れてしまいました": "パスワード忘れた",
    "注文をキャンセルする方法": "キャンセル方法",
    "配送先の住所を変更したい": "住所変更",
    "領収書はどこでダウンロードできますか": "領収書のダウンロード",
    "返金にはどのくらいかかりますか": "返金の日数",
    "会員登録を解除したいです": "登録解除",
}
THAI = {
    "ลืมรหัสผ่านต้องทำอย่างไร": "รหัสผ่าน",
    "ต้องการยกเลิกคำสั่งซื้อ": "ยกเลิก",
    "เปลี่ยนที่อยู่จัดส่งได้ไหม": "ที่อยู่",
    "สินค้าจะส่งเมื่อไร": "สินค้า",
}
KOREAN = {
    "비밀번호를 잊어버렸어요": "비밀번호 재설정",
    "주문을 취소하고 싶습니다": "주문 취소",
    "배송지를 변경할 수 있나요": "배송지 변경",
    "책은 언제 도착하나요": "책",
}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Two cats, a_b 3", ["Two", "cats", "a_b", "3"]),
        ("iPhone手机壳。", ["iPhone", "手机", "机壳"]),
        ("猫 is a cat", ["猫", "is", "a", "cat"]),
        ("किताब पढ़ो", ["किताब", "पढ़ो"]),
        ("กิน", ["กิน"]),
        ("ที่นี่", ["ที่นี่"]),
        ("한국어 단어", ["한국어", "단어"]),
        ("", []),
    ],
)
def test_words_and_pairs_of_characters(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_a_mark_never_leaves_its_letter() -> None:
    for text in [*THAI, "ภาษาไทย", "မြန်မာ", "ភាសាខ្មែរ", "हिन्दी में"]:
        for piece in [*words_of(text), *pieces_of(text)[1::2], *split_words(text)]:
            assert piece[0].isalnum(), f"{piece!r} of {text} begins with a mark"


def test_spaced_scripts_are_unchanged_and_cut_texts_can_be_joined_again() -> None:
    for text in ("two  cats, don't", "Über Größe", "красивые книги", "한국어 단어"):
        assert with_spaces(text) == text
        assert split_words(text) == text.split()
        assert count_words(text) == len(text.split())
    for text in (*CHINESE, *JAPANESE, *THAI, "iPhone 手机", "two cats sleep"):
        assert join_words(split_words(text)) == text
        assert "".join(pieces_of(text)) == text


@pytest.mark.parametrize("questions", [CHINESE, JAPANESE, THAI, KOREAN])
def test_a_search_by_words_needs_no_spaces(questions: dict[str, str]) -> None:
    index = Bm25(list(questions))
    for number, query in enumerate(questions.values()):
        assert (scores := index.scores(query)).argmax() == number, query
        assert scores[number] > 0, query


@pytest.mark.parametrize("questions", [CHINESE, JAPANESE, THAI])
def test_tfidf_needs_no_spaces(questions: dict[str, str]) -> None:
    tfidf = TfidfEncoder(list(questions))
    for number, query in enumerate(questions.values()):
        assert (tfidf.encode([query]) @ tfidf.encode(list(questions)).T).argmax() == number, query


def test_one_character_finds_the_words_that_it_is_in() -> None:
    assert (Bm25(["黑猫睡觉", "两只狗", "three dogs"]).scores("猫") > 0).tolist() == [True, False, False]


def test_copies_without_spaces_are_found_by_their_words() -> None:
    texts = ["订单什么时候可以发货呢我已经等了三天", "订单什么时候可以发货呢我已经等了五天", "怎样取消已经付款的订单"]
    assert near_duplicate_groups(None, texts, words=0.7).tolist() == [0, 0, 1]


def test_keywords_of_texts_without_spaces_are_pairs_of_characters() -> None:
    texts = ["怎样重置密码", "密码忘记怎么重置", "订单什么时候发货", "发货以后订单取消"]
    keywords, names = keywords_and_names(texts, [0, 0, 1, 1])
    assert {"密码", "重置"} <= {*keywords[0]}
    assert {"订单", "发货"} <= {*keywords[1]}
    assert len(set(names)) == 2


@pytest.mark.parametrize("text", [next(iter(CHINESE)), next(iter(THAI))])
def test_views_change_texts_without_spaces(text: str) -> None:
    characters = pieces_of(text)[1::2]
    [cropped] = crop([text], rate=0.5)
    assert cropped in text
    assert len(pieces_of(cropped)[1::2]) == round(len(characters) / 2)
    deleted = [view for number in range(20) for view in deletion([text], rate=0.3, view=number)]
    assert np.mean([len(pieces_of(each)) // 2 for each in deleted]) == pytest.approx(0.7 * len(characters), rel=0.15)
    swapped = {view for number in range(20) for view in swap([text], rate=0.3, view=number)}
    assert len(swapped) > 10
    assert {"".join(sorted(each)) for each in swapped} == {"".join(sorted(text))}


@pytest.mark.parametrize("kind", KINDS)
def test_planted_edits_of_texts_without_spaces_are_small(kind: str) -> None:
    text, other = "订单什么时候可以发货", "怎样取消已经付款的订单"
    copy = edit(text, other, kind)
    if kind == "case":
        assert copy == text
    else:
        assert copy != text
        assert len(copy) - len(text) == (2 if kind == "more" else 0)


def test_queries_are_cut_out_of_texts_without_spaces() -> None:
    text = "订单什么时候可以发货。我已经等了三天还没有收到。请尽快回复我。"
    assert [view.name for view in known_items([text])] == ["sentence", "half"]
    assert halves("如何重置我的密码") == ("如何重置", "我的密码")
    # two words with an accent are no sentence that could find its text, however long they are
    assert not [
        view for view in known_items(["Évidemment, naturellement. Ça va. Oui, bien sûr."]) if view.name == "sentence"
    ]


def test_long_texts_without_spaces_are_not_short() -> None:
    texts = [f"第{number}个订单什么时候可以发货我已经等了三天还没有收到请尽快回复" for number in range(5)]
    assert not read_corpus(texts).is_short()
    assert read_corpus([f"第{number}个订单" for number in range(5)]).is_short()


def test_a_label_free_criterion_reads_texts_without_spaces() -> None:
    texts = [f"{one[:-1]}{two}" for one in CHINESE for two in CHINESE if one != two]
    views = LabelFree(texts, CRITERIA)._views
    assert all(
        first and second and first != second
        for first, second in zip(views["first_half"], views["second_half"], strict=True)
    )
    assert [first + second for first, second in zip(views["first_half"], views["second_half"], strict=True)] == texts
