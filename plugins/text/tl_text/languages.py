"""Which script a text is written in, and which language where its function words leave no doubt."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping

LOOKED_AT = 4000  # characters of a text: more tell nothing new
LEAST_WORDS = 4  # of fewer, no language is guessed
LEAST_DISTINCT = 2  # different function words of the language found, at least: one may be a name
LEAST_SHARE = 0.1  # of the words must be its function words; in prose a quarter to a half are
MARGIN = 2.0  # times the evidence for the next language, at least

_FUNCTION_WORDS = {
    # the commonest articles, pronouns, prepositions, conjunctions and auxiliaries, as any grammar lists them
    "en": "the of and to in is was for that it with as on are be this by at from have has had not you what which who "
          "how where when why can do does did i my me am we our they their his her a an or but if there would will "
          "should about all any more one no so",
    "fr": "le la les des du de un une et est dans pour que qui pas sur avec au aux par ce cette il elle nous vous ils "
          "je ne se sont été être son ses leur plus mais ou où comme ont l d qu c n j",
    "de": "der die das und ist nicht ein eine einen einem einer des dem den von zu mit auf für im sich auch es an als "
          "ich du er sie wir ihr hat haben sind war wird wie oder aber bei nach aus um dass wenn kein noch nur",
    "es": "el la los las de del y que en un una es por con para se no su sus lo al como más pero le ha son está este "
          "esta ya muy sin sobre también fue yo mi cuando porque qué cómo hay entre desde",
    "pt": "o a os as de do da dos das em no na nos nas e que um uma para com não por se mais como mas foi ao ele ela "
          "seu sua são é está você eu meu minha isso este esta também já muito pelo pela à",
    "it": "il lo la i gli le di del della dei delle dell e che è un una in nel nella per con non si da dal dalla al "
          "alla sono ha come più ma anche mi ti ci questo questa suo sua loro l chi cosa ho quando dove",
    "nl": "de het een en van is in dat op te voor met zijn niet aan er om ook als bij maar naar uit door over ik je "
          "jij hij zij ze we wij worden wordt heeft hebben kan deze dit wat wie waar hoe nog geen",
    "sv": "och att det som en ett är på av för med den till inte har om jag du han hon vi de ni från var kan men så "
          "eller när efter ska också vid mot hur vad detta denna sig sin",
    "da": "og at det som en et er på af for med den til ikke har om jeg du han hun vi de fra var kan men så eller når "
          "efter skal også ved mod hvordan hvad dette denne sig sin blev være hvor",
    "fi": "ja on ei että se hän oli ovat mutta tai kun niin kuin myös joka jotka ole mitä tämä minä sinä olen en me "
          "te he sen vain jos sekä ollut mukaan mikä miten missä",
    "pl": "i w na z do nie się jest to że o jak ale po od za dla tak co czy przez są był była przy jego jej ich ten "
          "ta tego oraz jako mnie już tylko być które który która gdzie kiedy",
    "cs": "a v na se je že s z do o to i jako za by ale který která které jsou pro po od tak co jeho jsem bylo byl "
          "není při jak nebo už také ve ze podle však si má kde když proč",
    "hu": "a az és hogy nem is egy van volt ez meg csak de ha már még mint vagy amely aki el kell lehet ezt azt ki "
          "mi én ő lesz sem után között nagyon hogyan mit miért",
    "ro": "și şi de la în cu nu o un pe care este a au din pentru mai să ce sunt fi sau lui prin ca am ai fost dar "
          "acest această cum unde când el ea noi după între",
    "tr": "ve bir bu da de için ile olarak daha çok en gibi ne var olan kadar sonra ama mi mı değil o ben sen biz "
          "her ya şu ki ise nasıl nerede tarafından",
    "id": "yang dan di ke dari untuk dengan ini itu pada tidak adalah dalam akan telah oleh sudah saya anda kami kita "
          "mereka juga atau karena bisa ada sebagai lebih seperti apa bagaimana",
    "vi": "và của là có trong cho được không các một những với người đã này khi để từ như đến về ra tôi bạn anh ông "
          "vào cũng nhiều sẽ gì",
    "sw": "na ya wa kwa ni katika la za cha kuwa hii hiyo huyo kama pia lakini alisema baada yake wake sana bila ili "
          "au hata nini",
}  # fmt: skip

NAMES: Mapping[str, str] = {
    "en": "English", "fr": "French", "de": "German", "es": "Spanish", "pt": "Portuguese", "it": "Italian",
    "nl": "Dutch", "sv": "Swedish", "da": "Danish or Norwegian", "fi": "Finnish", "pl": "Polish", "cs": "Czech",
    "hu": "Hungarian", "ro": "Romanian", "tr": "Turkish", "id": "Indonesian or Malay", "vi": "Vietnamese",
    "sw": "Swahili", "ru": "Russian", "uk": "Ukrainian", "bg": "Bulgarian", "zh": "Chinese", "ja": "Japanese",
    "ko": "Korean", "ar": "Arabic", "fa": "Persian", "hi": "Hindi", "el": "Greek", "he": "Hebrew", "th": "Thai",
    "ca": "Catalan", "no": "Norwegian", "ur": "Urdu", "bn": "Bengali", "ta": "Tamil",
}  # fmt: skip
"""English names of languages by their ISO 639-1 codes."""

_ALIKE = {"da": ("da", "no", "nb", "nn"), "id": ("id", "ms"), "cs": ("cs", "sk")}
"""Languages that function words alone don't tell apart."""

SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "Chinese": ("zh", "ja"), "Japanese": ("ja",), "Korean": ("ko",), "Greek": ("el",), "Hebrew": ("he", "yi"),
    "Cyrillic": ("ru", "uk", "be", "bg", "sr", "mk", "kk", "ky", "mn", "tg", "tt"),
    "Arabic": ("ar", "fa", "ur", "ps", "ug", "sd", "ckb"), "Devanagari": ("hi", "mr", "ne", "sa"),
    "Bengali": ("bn", "as"), "Tamil": ("ta",), "Telugu": ("te",), "Kannada": ("kn",), "Malayalam": ("ml",),
    "Gujarati": ("gu",), "Gurmukhi": ("pa",), "Oriya": ("or",), "Sinhala": ("si",), "Thai": ("th",), "Lao": ("lo",),
    "Khmer": ("km",), "Myanmar": ("my",), "Tibetan": ("bo",), "Georgian": ("ka",), "Armenian": ("hy",),
    "Ethiopic": ("am", "ti"),
}  # fmt: skip
"""The languages that are written in a script other than Latin."""

_BLOCKS = {"CJK": "Chinese", "HIRAGANA": "Japanese", "KATAKANA": "Japanese", "HANGUL": "Korean"}
"""First words of characters' Unicode names that don't name their script."""

_WORD = re.compile(r"[^\W\d_]+")
_KANA_SHARE = 0.05  # of the letters: Japanese is half written in Chinese characters, Chinese never in kana
_PROFILES = {code: frozenset(words.split()) for code, words in _FUNCTION_WORDS.items()}
_SHARED_BY = Counter(word for words in _PROFILES.values() for word in words)


def script_of(text: str) -> str | None:
    """`Latin` or one of SCRIPTS: what more than half of the letters are of; None where there is no such."""
    found = Counter(_script(letter) for letter in text[:LOOKED_AT] if letter.isalpha())
    total = found.total()
    if total and found["Japanese"] >= _KANA_SHARE * total and found["Japanese"] + found["Chinese"] > total / 2:
        return "Japanese"
    name, count = found.most_common(1)[0] if found else ("", 0)
    return name if count > total / 2 and (name == "Latin" or name in SCRIPTS) else None


def language_of(text: str) -> str | None:
    """The ISO 639-1 code of a text in Latin script by its function words; None where they leave a doubt.

    A word counts for each language that has it, the less the more languages do.
    """
    words = _WORD.findall(text[:LOOKED_AT].lower())
    if len(words) < LEAST_WORDS:
        return None
    counts = Counter(words)
    evidence = Counter(
        {
            code: sum(counts[word] / _SHARED_BY[word] for word in profile if word in counts)
            for code, profile in _PROFILES.items()
        }
    )
    (best, most), (_, next_most) = evidence.most_common(2)
    hits = [counts[word] for word in _PROFILES[best] if word in counts]
    sure = len(hits) >= LEAST_DISTINCT and sum(hits) >= LEAST_SHARE * len(words) and most >= MARGIN * next_most
    return best if sure else None


def codes_of(language: str) -> tuple[str, ...]:
    """The codes that a language found by language_of() may as well stand for."""
    return _ALIKE.get(language, (language,))


def _script(letter: str) -> str:
    word = unicodedata.name(letter, "").partition(" ")[0]
    return _BLOCKS.get(word, word.capitalize())
