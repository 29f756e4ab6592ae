"""Which languages and lengths are seen in texts, and what is said of backbones that they don't suit."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tl_text import fit
from tl_text.languages import language_of, script_of
from tl_text.loader import TextLoader

from tl_core import BackboneSpec, Facts

LOADER = TextLoader()

SENTENCES = {
    "en": "The meeting was moved to Friday because the room is not free and we have no other.",
    "fr": "Le nouveau pont sera ouvert au public dans les prochains jours, mais pas pour les camions.",
    "de": "Die Brücke wird in den nächsten Tagen für den Verkehr geöffnet, aber nicht für Lastwagen.",
    "es": "El nuevo puente se abrirá en los próximos días, pero no para los camiones que van a la ciudad.",
    "pt": "A nova ponte não será aberta nos próximos dias para os caminhões que vão à cidade.",
    "it": "Il nuovo ponte sarà aperto nei prossimi giorni, ma non per i camion che vanno alla città.",
    "nl": "De nieuwe brug wordt in de komende dagen geopend, maar niet voor het verkeer van de stad.",
    "sv": "Den nya bron öppnas för trafik under de närmaste dagarna, men inte för lastbilar till staden.",
    "da": "Den nye bro åbner for trafik i de næste dage, men ikke for lastbiler som skal til byen.",
    "pl": "Nowy most zostanie otwarty w najbliższych dniach, ale nie dla ciężarówek, które jadą do miasta.",
    "fi": "Uusi silta avataan lähipäivinä, mutta se ei ole vielä auki niille, jotka ajavat kaupunkiin.",
    "tr": "Yeni köprü bu hafta açılacak ama kamyonlar için değil ve daha sonra bir tören olacak.",
    "id": "Jembatan baru itu akan dibuka untuk umum dalam beberapa hari, tetapi tidak untuk truk yang besar.",
}
SCRIPTS = {
    "Cyrillic": "Новый мост откроют в ближайшие дни, но не для грузовиков.",
    "Chinese": "新桥将在未来几天内开放，但不包括卡车。",
    "Japanese": "新しい橋は数日以内に開通しますが、トラックは通れません。",
    "Korean": "새 다리는 며칠 안에 개통되지만 트럭은 다닐 수 없다.",
    "Arabic": "سيفتح الجسر الجديد في الأيام المقبلة ولكن ليس للشاحنات.",
    "Devanagari": "नया पुल अगले कुछ दिनों में खुल जाएगा, लेकिन ट्रकों के लिए नहीं।",
    "Greek": "Η νέα γέφυρα θα ανοίξει τις επόμενες ημέρες, αλλά όχι για φορτηγά.",
    "Hebrew": "הגשר החדש ייפתח בימים הקרובים, אבל לא למשאיות.",
    "Thai": "สะพานใหม่จะเปิดในอีกไม่กี่วัน แต่ไม่ใช่สำหรับรถบรรทุก",
}
CODE = (
    "for (int i = 0; i < n; ++i) { total += values[i]; }",
    "SELECT name, COUNT(*) FROM users GROUP BY name ORDER BY 2 DESC LIMIT 10;",
    "const add = (a, b) => a + b; export default add;",
    "def mean(xs): return sum(xs) / len(xs)",
    "#include <vector> int main() { std::vector<int> v(10); return v.size(); }",
)


def never(spec: BackboneSpec, seed: int | None) -> Any:
    raise AssertionError("built before anything may be computed")


def net(name: str, tokens: int | None = 512, languages: tuple[str, ...] = ("en",), params: int = 1) -> BackboneSpec:
    takes: dict[str, Any] = {"languages": list(languages)} if languages else {}
    if tokens:
        takes["tokens"] = tokens
    return BackboneSpec(name, "text", "hub", name, builder=never, params=params, takes=takes)


def said(spec: BackboneSpec, facts: list[Facts], *others: BackboneSpec) -> list[tuple[str, str]]:
    return [(w.text, w.remedy) for w in fit.misfits(spec, facts, lambda: others)]


# what is seen


@pytest.mark.parametrize(("code", "text"), SENTENCES.items())
def test_the_language_of_a_sentence(code: str, text: str) -> None:
    assert script_of(text) == "Latin"
    assert language_of(text) == code


@pytest.mark.parametrize(("script", "text"), SCRIPTS.items())
def test_the_script_of_a_sentence(script: str, text: str) -> None:
    assert LOADER.measure(text)["script"] == script
    assert "language" not in LOADER.measure(text)


@pytest.mark.parametrize(
    "text", ["", "42", "Où est-il", "la la land", "Berlin Paris Rom Madrid", "WLAN-Router 300 Mbit/s schwarz", *CODE]
)
def test_where_the_language_is_in_doubt_nothing_is_guessed(text: str) -> None:
    assert language_of(text) in (None, "en")
    assert language_of("de la in en die") is None


def test_facts_of_a_text() -> None:
    assert LOADER.measure("How far is it to the moon ?") == {
        "characters": 27,
        "words": 8,
        "script": "Latin",
        "language": "en",
    }
    assert LOADER.measure("12 + 30") == {"characters": 7, "words": 3}
    assert LOADER.measure("ab ба вг") == {"characters": 8, "words": 3, "script": "Cyrillic"}
    assert "script" not in LOADER.measure("ab ба")


# what is said


def english(n: int = 100) -> list[Facts]:
    return [fit.measure(SENTENCES["en"])] * n


def test_english_for_english_gives_no_warning() -> None:
    assert said(net("net"), [*english(), *[fit.measure(SENTENCES["fr"])] * 9]) == []
    assert said(net("net"), [fit.measure(code) for code in CODE] * 10) == []


def test_another_language() -> None:
    facts = [fit.measure(SENTENCES["fr"])] * 94 + english(6)
    others = [net("big", languages=("many",), params=9), net("small", languages=("many",), params=2)]
    text = "about 94% of the texts look French; the pretraining was English"
    assert said(net("net"), facts, net("net"), *others) == [(text, "choose small or big, or translate them first")]
    own = net("french", languages=("fr", "en"), params=99)
    assert said(net("net"), facts, *others, own) == [(text, "choose french or small, or translate them first")]
    assert said(net("net"), facts) == [(text, "translate them first")]
    for suits in (own, others[0], net("unknown", languages=()), net("code", languages=("code",))):
        assert said(suits, facts) == []


def test_english_for_a_french_backbone() -> None:
    assert said(net("french", languages=("fr",)), english()) == [
        ("nearly all of the texts look English; the pretraining was French", "translate them first")
    ]


def test_another_script_and_a_mixture() -> None:
    chinese = [fit.measure(SCRIPTS["Chinese"])] * 20
    text = "nearly all of the texts look Chinese; the pretraining was English"
    assert said(net("net", None), chinese) == [(text, "translate them first")]
    assert said(net("net", None, ("zh",)), chinese) == []
    mixture = [fit.measure(text) for text in (*SENTENCES.values(), *SCRIPTS.values(), SENTENCES["fr"])]
    [(text, _)] = said(net("net", None), mixture)
    assert text == "about 96% of the texts look foreign, mostly French; the pretraining was English"


def test_relatives_that_look_alike_are_not_foreign() -> None:
    danish = [fit.measure(SENTENCES["da"])] * 20
    assert said(net("norwegian", languages=("no",)), danish) == []
    assert said(net("swedish", languages=("sv",)), danish) != []


def test_too_few_texts_that_show_their_language_say_nothing() -> None:
    assert said(net("net"), [fit.measure(SENTENCES["fr"])] * 9 + [fit.measure("oui")] * 90) == []


def test_texts_past_the_window() -> None:
    long: Facts = {**english(1)[0], "characters": 3000}
    facts = [long] * 43 + english(57)
    others = [net("longest", 8192), net("french", 1024, ("fr",)), net("long", 1024), net("short", 512)]
    text = "about 43% of the texts are longer than the 256 tokens that go in; the rest is cut"
    assert said(net("net", 256), facts, *others) == [
        (text, "choose long or longest, or put what decides the label into the first 1,100 characters")
    ]
    assert said(net("net", 256), facts) == [(text, "put what decides the label into the first 1,100 characters")]
    assert said(net("net", 256), [long] * 9 + english(91)) == []
    assert said(net("net", 1024), facts) == []
    assert said(net("net", None), facts) == []


def test_scripts_that_a_tokenizer_does_not_know_take_more_tokens() -> None:
    cyrillic: Facts = {"characters": 500, "words": 80, "script": "Cyrillic"}
    assert [text for text, _ in said(net("net", 256), [cyrillic] * 20)] == [
        "nearly all of the texts are longer than the 256 tokens that go in; the rest is cut",
        "nearly all of the texts look Cyrillic; the pretraining was English",
    ]
    assert said(net("many", 256, ("many",)), [cyrillic] * 20) == []


def test_the_catalogue_offers_other_languages() -> None:
    [warning] = LOADER.misfits(net("net"), [fit.measure(SENTENCES["fr"])] * 20)
    assert warning.remedy.startswith("choose ")


@pytest.mark.shared
@pytest.mark.parametrize("name", ["trec6", "banking77", "sst2_mini", "sentiment_domains"])
def test_real_english_is_never_taken_for_another_language(shared_data: Path, name: str) -> None:
    found = Counter(language_of(text) for text in texts(shared_data / "datasets" / name))
    known = found.total() - found[None]
    assert known >= 0.75 * found.total()
    assert found["en"] >= 0.998 * known
    assert said(net("net"), [fit.measure(text) for text in texts(shared_data / "datasets" / name)][:500]) == []


@pytest.mark.shared
def test_real_french(shared_data: Path) -> None:
    facts = [fit.measure(text) for text in texts(shared_data / "datasets/masakhanews_fra")]
    assert sum(fact.get("language") == "fr" for fact in facts) >= 0.97 * len(facts)
    assert "look French; the pretraining was English" in said(net("net"), facts)[-1][0]


def texts(folder: Path) -> list[str]:
    with (folder / "train.csv").open(encoding="utf-8", newline="") as stream:
        return [row["text"] for row in csv.DictReader(stream)]
