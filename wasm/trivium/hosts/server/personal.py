"""What in a text tells of a person: which names, numbers and addresses, in English and Chinese?

Numbers are believed by their own check digits and plans, names by what stands beside them. Every
pattern begins at a boundary and repeats within bounds, so that a hostile text costs no more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache

import phonenumbers
from stdnum import iban, luhn
from stdnum.br import cpf
from stdnum.cn import ric
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.in_ import aadhaar
from stdnum.it import codicefiscale
from stdnum.kr import rrn

from .given import CALLED, FAMILY, GIVEN

Found = tuple[int, int, str]
"""From where to where something stands, and of which kind it is."""

KINDS = ("address", "card", "date", "email", "iban", "id", "name", "patient", "phone", "secret")

_HAN = r"\u4e00-\u9fff"
_FREE = r"(?<![0-9A-Za-z_.])"
"""What a number does not stand right behind: else it is a part of something longer."""

_END = r"(?![0-9A-Za-z_]|\.\d)"


def _digits(text: str) -> str:
    return "".join(filter(str.isdecimal, text))


@lru_cache(1024)
def _dialled(text: str, region: str) -> bool:
    """Return whether a number can be dialled, by the plan of its country."""
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, region or None))
    except phonenumbers.NumberParseException:
        return False


# Secrets ------------------------------------------------------------------------------------------

_SECRET = re.compile(
    r"(?<![A-Za-z0-9])tvm_[a-z0-9]{12}_[A-Za-z0-9_-]{20,64}"
    r"|(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{4,8000}\.[A-Za-z0-9_-]{4,8000}\.[A-Za-z0-9_-]{0,2000}"
    r"|(?i:(?<=bearer )|(?<=ticket\.))[A-Za-z0-9._~+/=-]{12,8000}"
)
_SECRET_CUE = re.compile(
    r"(?i)(?<![a-z])(?:password|passwd|secret|api[_-]?key|access[_-]?token|密码|口令)"
    r"[\"']?\s{0,3}[:=：]\s{0,3}[\"']?([^\s\"',;，。；\[\]]{4,200})"
)

# Patient fields -----------------------------------------------------------------------------------

_DICOM = re.compile(
    r"\((?:0010, ?(?!0040|1010|1020|1030)[0-9A-Fa-f]{4}|0008, ?(?:0050|0090|1050|1070))\)"
    r"[ \t]{0,4}([^\n]{1,200})"
)
_DICOM_NAME = re.compile(r"(?<![A-Za-z^])[A-Za-z][A-Za-z'-]{0,40}(?:\^[A-Za-z.'-]{0,40}){1,4}")
_KEYWORD = re.compile(
    r"\b(?:Patient(?:Name|ID|BirthDate|BirthName|Address|TelephoneNumbers|MotherBirthName)"
    r"|OtherPatientIDs|OtherPatientNames|AccessionNumber|ReferringPhysicianName"
    r"|PerformingPhysicianName|OperatorsName)[\"']?\s{0,3}[:=]\s{0,3}[\"']?"
    r"([^\s\"',;\[\]{}][^\n\"',;\[\]{} ]{0,99})"
)

# Addresses and numbers ----------------------------------------------------------------------------

_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+-][A-Za-z0-9._%+-]{0,63}"
    r"@(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}\.){1,6}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}")
_CARD = re.compile(_FREE + r"(?:\d[ -]?){12,18}\d" + _END)
_BRANDS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3[068]\d{12}|35\d{14}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|62\d{14,17}"
)
_CARD_CUE = re.compile(
    r"(?i)(?:(?<![a-z])(?:card|visa|mastercard|amex|unionpay)(?: number| no\.?)?|卡号?)"
    r"(?: is|是|为)?\s{0,3}[:：#=]?\s{0,3}((?:\d[ -]?){12,18}\d)(?!\d)"
)
_MANY = re.compile(r"\d(?:[ ().\-/]{0,2}\d){5}")
"""Six digits not far from each other: with fewer no number of these is there."""

_PLANS: tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...] = (
    (
        re.compile(r"(?<![0-9A-Za-z+])(?:\+|00)[1-9](?:[ .()/-]{0,2}\d){6,14}(?!\d)"),
        lambda text: _dialled("+" + _digits(text.replace("(0)", "")).lstrip("0"), ""),
    ),
    (
        re.compile(_FREE + r"(?:86[ -]?)?1[3-9]\d[ -]?\d{4}[ -]?\d{4}" + _END),
        lambda text: _dialled(text, "CN"),
    ),
    (
        re.compile(_FREE + r"(?:\(0\d{2,3}\) ?|0\d{2,3}[ -])\d{7,8}" + _END),
        lambda text: _dialled(text, "CN"),
    ),
    (re.compile(_FREE + r"[48]00-\d{3}-?\d{4}" + _END), lambda _: True),
    (re.compile(_FREE + r"0[1-9](?:[ .]\d\d){4}" + _END), lambda _: True),
    (re.compile(_FREE + r"0\d{2} \d{4} \d{4}" + _END), lambda _: True),
    (re.compile(_FREE + r"07\d{3} ?\d{6}" + _END), lambda _: True),
    (
        re.compile(r"(?<![0-9A-Za-z_.(])(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}-)\d{3}[ .-]\d{4}" + _END),
        lambda _: True,
    ),
)
_PERSONS: tuple[tuple[re.Pattern[str], Callable[[str], bool]], ...] = (
    (re.compile(_FREE + r"[1-9]\d{5}(?:19|20)\d{2}[01]\d[0-3]\d{4}[0-9Xx]" + _END), ric.is_valid),
    # Their form tells enough.
    (re.compile(_FREE + r"(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}" + _END), lambda _: True),
    (
        re.compile(_FREE + r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-Z]{2} ?\d\d ?\d\d ?\d\d ?[A-D]" + _END),
        lambda _: True,
    ),
    (re.compile(_FREE + r"\d{3}\.\d{3}\.\d{3}-\d{2}" + _END), cpf.is_valid),
    (
        re.compile(_FREE + r"[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z]" + _END),
        codicefiscale.is_valid,
    ),
    (re.compile(_FREE + r"\d{8}-?[A-Z]" + _END), dni.is_valid),
    (re.compile(_FREE + r"[XYZ]-?\d{7}-?[A-Z]" + _END), nie.is_valid),
    (re.compile(_FREE + r"\d{6}-[1-8]\d{6}" + _END), rrn.is_valid),
    (re.compile(_FREE + r"[2-9]\d{3}[ -]\d{4}[ -]\d{4}" + _END), aadhaar.is_valid),
    (re.compile(_FREE + r"\d{3} \d{3} \d{4}" + _END), nhs.is_valid),
    (re.compile(_FREE + r"[12] ?\d\d ?[01]\d ?\d[0-9AB] ?\d{3} ?\d{3} ?\d\d" + _END), nir.is_valid),
)
_PHONE_CUE = re.compile(
    r"(?i)(?:(?<![a-z])(?:tele)?phone(?: number| no\.?)?|(?<![a-z])tel\.?|(?<![a-z])mobile"
    r"|(?<![a-z])cell|(?<![a-z])fax|(?<![a-z])(?:call|ring|text) (?:me |us )?(?:at|on)"
    r"|电话|手机|座机|热线|传真|致电|联系方式|微信)[号码]{0,2}(?:同号|是|为)?"
    r"\s{0,3}[:：#=]?\s{0,3}(\+?\(?\d[\d ()./-]{4,20}\d)"
)
_ID_CUE = re.compile(
    r"(?i)(?:身份证|证件|护照|社保卡?|病历|住院|门诊|病案|就诊卡|医保卡?|学(?=号)|工(?=号))(?:号码?)?"
    r"(?:是|为)?\s{0,3}[:：]?\s{0,3}(?=[a-z-]{0,6}\d)([a-z0-9][a-z0-9-]{3,30})"
    r"|(?<![a-z])(?:passport|MRN|medical record|patient id|patient|NHS|SSN|social security"
    r"|national insurance|insurance|policy|(?:driver'?s |driving )?licen[cs]e|identity card|ID card"
    r"|(?:employee|customer|member|student|staff) id|badge|account)"
    r"(?: ?(?:number|no\.?|id))?(?: is| =|:|=| )\s{0,3}(?=[a-z-]{0,6}\d)"
    r"([a-z0-9][a-z0-9]{0,5}(?:[ -]?[a-z]{0,3}\d[a-z0-9]{0,12}){1,5})"
)
_BIRTH = re.compile(
    r"(?i)(?:(?<![a-z])(?:DOB|date of birth|birth ?date|birthday|born(?: on)?)"
    r"|出生(?:日期|年月)?|生日)(?:是|为| is)?\s{0,3}[:：=,]?\s{0,3}"
    r"(\d{1,4}[-/.年 ]{1,2}(?:\d{1,2}|[a-z]{3,9})[-/.月 ,]{1,2}\d{1,4}日?"
    r"|[a-z]{3,9} \d{1,2}, \d{4})"
)

# Names --------------------------------------------------------------------------------------------

_WORD = r"(?:[A-ZÀ-ÖØ-Þ](?:[a-zß-öø-ÿ'’]{1,24}|\.)(?:[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ]{1,24})?)"
_PART = rf"(?:{_WORD}|[A-Z]['’][A-Z][a-z]{{1,24}})(?:-[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ]{{1,24}})?"
_MORE = (
    r"(?:,? (?:(?:van|von|de|der|den|del|della|di|da|dos|bin|al|el|la|le|ter) ){0,2}" + _PART + ")"
)
_TITLE = r"(?:Mr|Mrs|Ms|Mx|Miss|Dr|Prof|Professor|Sir|Madam|Herr|Frau|Señora?)"
_ROLE = (
    r"pt\.?|claimant|passenger|guest|wife|husband|mother|father|son|daughter|sister|brother|spouse"
    r"|partner|tenant|applicant|beneficiary|witness|member|client|colleague|neighbou?r|caller"
    r"|insured|patient|customer|employee|nurse|manager"
)
_NAME = re.compile(
    # A title; what is greeted by name; a form's field; somebody who says who it is, or who is what.
    rf"(?<![A-Za-z])(?:{_TITLE}\.?(?: (?:Dr|Prof)\.?)? "
    rf"|(?:Dear|Hi|Hello|Good (?:morning|afternoon|evening)) "
    rf"|(?i:[a-z]{{0,12}} ?name(?: of [a-z ]{{1,20}})?|contact|holder|physician|surgeon|doctor|attn"
    rf"|radiologist"
    rf"|author|sender|recipient|signed|delivered to|deliver to|ship to|bill to|next of kin|from|to"
    rf"|{_ROLE})\s{{0,2}}(?:[:=,]|-)\s{{0,2}}"
    rf"|(?i:my name is|i am called|this is|account holder|name is|{_ROLE}"
    rf"|signed by|spoke to|ask for|asked for|is called|named) "
    rf"|(?i:regards|wishes|sincerely|yours|cheers|thanks|thank you),\s{{1,3}})"
    rf"((?:{_TITLE}\.? ){{0,2}}({_PART}{_MORE}{{0,3}}))"
    rf"|(?<![A-Za-z/])()([A-Z]{{2,20}}/[A-Z]{{2,20}} (?:MR|MRS|MS|MISS|MSTR))(?![A-Za-z])"
)
_OTHERS = """
    A An And Any As At Be Both But By Can Care Chart Clinic Customer Customers Data Day Each
    English Every Everybody Everyone File Files For Friday From Friend Friends Group He Her
    History His Hospital How Id If Image In Information Input Is It Its Label Labels Madam
    Monday My Name No Not Number Of On Or Our Page Patient Patients Please Portal Record
    Records Report Safety Satisfaction Saturday Scan See She Sir Sirs Study Sunday Support
    Sure Table Team Thank Thanks That The Their There These They This Thursday To Tuesday Type
    Unit User Value Values We Wednesday What When Where Which Who Why World Yes You Your All
    One Two Three Service Services January February March April May June July August September
    October November December
"""
_NO_NAMES = frozenset(_OTHERS.split())
_CAPITAL = re.compile(r"(?<![A-Za-zÀ-ÿ'’.-])[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ]{1,24}(?= [A-ZÀ-ÖØ-Þ])")
_WHOLE = re.compile(rf"{_PART}(?: [A-Z]\.)?({_MORE}{{1,2}})")
_LOOSE = re.compile(rf"(?i)(?:{_ROLE}|this is),? $")
"""Cues that are words of every day: behind them one word is too little to be a name."""

_SURNAMES = (
    "赵钱孙李周吴郑王冯陈褚卫蒋沈韩杨朱秦尤许何吕施张孔曹严华金魏陶姜戚谢邹喻苏潘葛范彭郎鲁韦马苗方俞任袁"
    "柳鲍史唐费薛雷贺倪汤殷罗毕郝安常乐于傅康伍余元顾孟平黄穆萧尹姚邵汪毛米贝戴宋庞熊纪舒屈项祝董梁杜阮"
    "蓝闵季贾江童颜郭梅林钟徐邱骆高夏蔡田樊胡凌霍虞万管卢莫房裘缪解应宗丁宣邓单洪包左石崔吉龚程邢裴陆荣"
    "翁甄靳段巫焦侯全班秋宁仇甘武符刘景龙叶白蒲卓蔺屠乔闻党翟谭姬申冉桂牛边燕尚农温庄柴瞿阎连习艾向古易"
    "廖耿匡文欧殷利师巩聂关岳齐辛简曾沙曲游肖涂"
)
_DOUBLE = (
    "欧阳|司马|上官|诸葛|夏侯|东方|皇甫|尉迟|公孙|慕容|长孙|宇文|司徒|令狐|端木|南宫|百里|呼延"
)
_LAST = rf"(?:{_DOUBLE}|[{_SURNAMES}])"
_ROLES = "先生|女士|小姐|医生|大夫|主任|教授|护士|老师|律师|经理|同学"
_STOP = rf"(?=[^{_HAN}]|$|(?:{_ROLES}|的|于|在|因|来|签|反馈|男|女|今年|和|与|说|已|申请|预约))"
_GIVEN = rf"[{_HAN}]{{1,2}}?"
_HAN_NAME = re.compile(
    # A form's field may hold any name; other cues need a surname, and an end behind the name.
    rf"(?:姓名|名字|联系人|收件人|收货人|寄件人|户名|经办人|签名|主治医师|主管医师|监护人|患者|病人)"
    rf"[:：]\s{{0,3}}([{_HAN}]{{1,8}}·[{_HAN}]{{1,8}}|{_LAST}{_GIVEN}{_STOP}|[{_HAN}]{{2,4}}{_STOP})"
    rf"|(?<=[人师员者生])[:：]\s{{0,3}}({_LAST}{_GIVEN}){_STOP}"
    rf"|(?:我叫|我是|名叫)([{_HAN}]{{1,8}}·[{_HAN}]{{1,8}})"
    rf"|({_LAST}{_GIVEN})(?=\s?[（(](?:工号|学号|身份证|电话|\s?(?:\+?86)?\s?1[3-9]\d))"
    rf"|(?:姓名|患者|病人|联系人|联系|收件人|户名|家属|用户|客户|会员|我叫|我是|名叫|叫做|名字是|尊敬的|医师|经办人|持卡人|投保人|受益人|代表人|就诊人|家长|司机)"
    rf"\s?({_LAST}{_GIVEN}){_STOP}"
    rf"|(?<![{_HAN}])({_LAST}[{_HAN}]{{1,2}}?)(?={_ROLES})"
    rf"|(?:(?<![{_HAN}])|(?<=[请由给是向约和与]))({_LAST})(?=(?:{_ROLES}))"
)
_HAN_WHOLE = re.compile(rf"[{FAMILY}][{CALLED}]{{2}}")
_WORDS = """
    关系 关心 关注
    高血压 高血糖 高血脂 高热 高烧 黄疸 黄染 白细胞 白内障 白血病 白带 石膏 金属 温度 何时
    何地 何处 何人 安全 安静 平安 方便 方法 方案 常规 常见 全部 全身 全家 应该 应当 任何 左侧
    左手 左右 右侧 连续 关于 关节 文件 文字 包括 向上 向下 向来 解释 解决 曾经 简单 简要 高度
    高兴 高级 于是 于今 申请 申诉 游客 管理员 管理 师傅 单位 单独 尚未 时间 明显 元素 康复
    利用 应用 师范 万一 平均 常用 习惯 温和 华为 马上 石头 方程 白云 马路
"""
_NO_HAN = tuple(_WORDS.split())


def found(text: str) -> Iterator[Found]:
    """Yield what tells of a person; places may overlap, the surer kinds come first."""
    yield from _groups(_SECRET, text, "secret")
    yield from _groups(_SECRET_CUE, text, "secret")
    if "(00" in text:
        yield from _groups(_DICOM, text, "patient")
    if "Patient" in text or "Physician" in text or "Accession" in text or "Operators" in text:
        yield from _groups(_KEYWORD, text, "patient")
    if "^" in text:
        yield from _groups(_DICOM_NAME, text, "name")
    if "@" in text:
        yield from _groups(_EMAIL, text, "email")
    if any(map(text.__contains__, "0123456789")):
        yield from _numbers(text)
    yield from _names(text)


def _groups(pattern: re.Pattern[str], text: str, kind: str) -> Iterator[Found]:
    for match in pattern.finditer(text):
        group = match.lastindex or 0
        yield match.start(group), match.end(group), kind


def _numbers(text: str) -> Iterator[Found]:
    yield from _groups(_BIRTH, text, "date")
    yield from _groups(_ID_CUE, text, "id")
    if _MANY.search(text) is None:
        return
    for match in _IBAN.finditer(text):
        if length := _iban(match[0]):
            yield match.start(), match.start() + length, "iban"
    for pattern, holds in _PERSONS:
        for match in pattern.finditer(text):
            if holds(match[0]):
                yield match.start(), match.end(), "id"
    for match in _CARD.finditer(text):
        digits = _digits(match[0])
        if _BRANDS.fullmatch(digits) and luhn.is_valid(digits):
            yield match.start(), match.end(), "card"
    yield from _groups(_CARD_CUE, text, "card")
    for pattern, holds in _PLANS:
        for match in pattern.finditer(text):
            if holds(match[0]):
                yield match.start(), match.end(), "phone"
    for match in _PHONE_CUE.finditer(text):
        if 6 <= len(_digits(match[1])) <= 15:
            yield match.start(1), match.end(1), "phone"


def _names(text: str) -> Iterator[Found]:
    for match in _NAME.finditer(text):
        if match[4]:
            yield match.start(4), match.end(4), "name"
            continue
        words = match[2].replace("-", " ").split()
        cue = text[match.start() : match.start(1)]
        if words[0].rstrip(",'’") in _NO_NAMES:
            continue
        if _LOOSE.search(cue) and (len(words) < 2 or words[1] in _NO_NAMES):
            continue
        yield match.start(1), match.end(1), "name"
    for match in _CAPITAL.finditer(text):
        whole = _WHOLE.match(text, match.start()) if match[0] in GIVEN else None
        if whole and whole[1].split()[0].strip(",") not in _NO_NAMES:
            yield whole.start(), whole.end(), "name"
    if not text.isascii():
        yield from _groups(_HAN_WHOLE, text, "name")
        for match in _HAN_NAME.finditer(text):
            group = match.lastindex or 0
            if not match[group].startswith(_NO_HAN):
                yield match.start(group), match.end(group), "name"


def _iban(text: str) -> int:
    """Return how many of the characters are an IBAN, 0 for none."""
    for length in range(len(text), 14, -1):
        if text[length - 1] != " " and iban.is_valid(text[:length]):
            return length
    return 0
