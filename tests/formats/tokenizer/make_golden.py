#!/usr/bin/env python3
"""Writes the golden files of the tokenizer tests from the reference libraries.

    python3 make_golden.py            (needs tokenizers, jinja2; the tests need neither)

golden/<name>.json        small tokenizer.json files, trained on the text below
golden/<name>.cases.json  texts with the ids and the decoded text that the library gives
golden/unicode.json       what each property means to the library, for every code point
golden/chat.json          chat templates, in the styles of known models, as jinja2 renders them
"""
import json
import os
import zlib

import jinja2
import jinja2.ext
import jinja2.sandbox
import tokenizers
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden")

CORPUS = """
The ferry left the harbour at ten o'clock, and nobody on the pier waved.
We've counted 128 boxes; they'd said there would be 131. It's late, isn't it?
She'll mend the net tomorrow if the wind doesn't turn to the north again.
A lamp, a rope, two knives and a tin of biscuits: that was all they had.
    def tide(hour):
        return 3.5 + 1.25 * math.sin(hour / 12.4 * 2 * math.pi)
The water rose 2 metres in 6 hours and fell 2 metres in the next 6 hours.
"Where is the other oar?" he asked. "Where it was," she said, "in the shed."
Rain on the roof, rain on the road, rain in the river and rain in the boots.
Der Fährmann wartete am Fluß; die Brücke war über Nacht gesperrt worden.
La marée était haute à l'aube, et les pêcheurs n'étaient pas encore rentrés.
El niño corrió hasta la orilla: ¿quién había dejado allí aquella maleta?
Паром отошёл от берега в десять часов, и никто не махал рукой.
渡し船は十時に港を出た。誰も手を振らなかった。
나룻배는 열 시에 항구를 떠났다. 아무도 손을 흔들지 않았다.
""".strip()

TEXTS = [
    "", " ", "  ", "\n", "a", " a", "a ", "Hello, world!", "The ferry left the harbour.",
    "they'd said there'S ISN'T we'LL I'm he'd", "12345 1 22 333 4444 ٣٤ ½ Ⅳ ²",
    "  two  spaces   and\ttabs\t\tand\n\nlines \r\n end  ", "rain rain  rain   rain",
    "über Fluß Brücke u\u0308ber Bru\u0308cke \u212b \ufb01", "渡し船は十時に港を出た。", "나룻배 \u1102\u1161",
    "🙂👨\u200d👩\u200d👧 🇫🇷", "\u00a0nbsp\u2003em\u3000wide\u2028line\u0085next\u180emvs",
    "x\u0000y\u007fz", "<|s|>", "<|s|><|e|>", "a<|s|>b <|e|> c", "  <|pad|>  x", "tool tools a tool.",
    "▁a▁▁b", "Ġa Ċ", "def f(x):\n    return x ** 2\n\n\n", "\u0315\u0334 e\u0301\u0327", "𝟎𝟏 𐍈 \U00031350",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "the" * 30,
]

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
              "use_regex": False}
BYTE_LEVEL_REGEX = dict(BYTE_LEVEL, use_regex=True)


def split(pattern):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
            "invert": False}


def sequence(key, *parts):
    return {"type": "Sequence", key: list(parts)}


def template(before, after, ids):
    items = [{"SpecialToken": {"id": t, "type_id": 0}} for t in before]
    items += [{"Sequence": {"id": "A", "type_id": 0}}]
    items += [{"SpecialToken": {"id": t, "type_id": 0}} for t in after]
    specials = {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in before + after}
    pair = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    return {"type": "TemplateProcessing", "single": items, "pair": pair,
            "special_tokens": specials}


def added(token_id, content, **flags):
    token = dict(id=token_id, content=content, single_word=False, lstrip=False, rstrip=False,
                 normalized=False, special=True)
    token.update(flags)
    return token


def train_byte_level(pattern, size):
    t = Tokenizer(models.BPE())
    parts = [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []
    t.pre_tokenizer = pre_tokenizers.Sequence(
        parts + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)])
    t.train_from_iterator([CORPUS], trainers.BpeTrainer(
        vocab_size=size, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return json.loads(t.to_str())["model"]


def train_metaspace(size):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    t.train_from_iterator([CORPUS], trainers.BpeTrainer(vocab_size=size, show_progress=False))
    model = json.loads(t.to_str())["model"]
    tokens = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(256)]
    tokens += [t for t in sorted(model["vocab"], key=model["vocab"].get)]
    tokens += ["▁▁", "▁▁▁", "▁▁▁▁"]
    model["merges"] = [["▁", "▁"], ["▁▁", "▁▁"], ["▁▁", "▁"], ["▁", "▁▁"]] + model["merges"]
    model.update(vocab={t: i for i, t in enumerate(tokens)}, unk_token="<unk>", fuse_unk=True,
                 byte_fallback=True)
    return model


def document(model, **parts):
    base = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [],
            "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None}
    base.update(parts)
    base["model"] = model
    return base


def legacy(model):
    """The same model with merges in the older form."""
    return dict(model, merges=[" ".join(m) for m in model["merges"]])


def byte_level_documents():
    model = train_byte_level(None, 400)
    n = len(model["vocab"])
    yield "gpt2", document(
        legacy(model), added_tokens=[added(n, "<|e|>", normalized=True)],
        pre_tokenizer=BYTE_LEVEL_REGEX, post_processor=BYTE_LEVEL_REGEX, decoder=BYTE_LEVEL_REGEX)
    digits = {"type": "Digits", "individual_digits": True}
    yield "smollm", document(
        legacy(model), added_tokens=[added(n, "<|s|>"), added(n + 1, "<|e|>")],
        pre_tokenizer=sequence("pretokenizers", digits, BYTE_LEVEL_REGEX),
        decoder=BYTE_LEVEL_REGEX)
    spaces = [added(n + i, " " * (6 - i), normalized=True, special=False) for i in range(5)]
    yield "neox", document(
        model, added_tokens=spaces + [added(n + 5, "<|pad|>", lstrip=True, rstrip=True)],
        normalizer={"type": "NFC"}, pre_tokenizer=dict(BYTE_LEVEL_REGEX, add_prefix_space=True),
        post_processor=template([], [], {}), decoder=BYTE_LEVEL_REGEX)
    model = dict(train_byte_level(LLAMA3, 420), ignore_merges=True)
    n = len(model["vocab"])
    yield "llama3", document(
        model, added_tokens=[added(n, "<|s|>"), added(n + 1, "<|e|>")],
        pre_tokenizer=sequence("pretokenizers", split(LLAMA3), BYTE_LEVEL),
        post_processor=sequence("processors", BYTE_LEVEL, template(["<|s|>"], [], {"<|s|>": n})),
        decoder=BYTE_LEVEL)
    yield "qwen2", document(
        legacy(dict(model, ignore_merges=False)),
        added_tokens=[added(n, "<|s|>"), added(n + 1, "<|e|>"),
                      added(n + 2, "tool", single_word=True, special=False)],
        normalizer={"type": "NFC"},
        pre_tokenizer=sequence("pretokenizers", split(QWEN2), BYTE_LEVEL),
        post_processor=BYTE_LEVEL, decoder=BYTE_LEVEL)


def metaspace_documents():
    model = train_metaspace(420)
    ids = model["vocab"]
    n = len(ids)
    tokens = [added(0, "<unk>"), added(1, "<s>"), added(2, "</s>")]
    more = tokens + [added(n, "<|s|>", rstrip=True), added(n + 1, "tool", normalized=True,
                                                           special=False)]
    string = {"String": " "}
    prepend = {"type": "Prepend", "prepend": "▁"}
    replace = {"type": "Replace", "pattern": string, "content": "▁"}
    decoder = sequence("decoders", {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                       {"type": "ByteFallback"}, {"type": "Fuse"},
                       {"type": "Strip", "content": " ", "start": 1, "stop": 0})
    bos = template(["<s>"], [], ids)
    yield "llama2", document(
        legacy(model), added_tokens=more, normalizer=sequence("normalizers", prepend, replace),
        post_processor=bos, decoder=decoder)
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first",
                 "split": False}
    yield "mistral", document(model, added_tokens=tokens, pre_tokenizer=metaspace,
                              post_processor=template(["<s>"], ["</s>"], ids), decoder=decoder)
    yield "metaspace_split", document(
        dict(model, byte_fallback=False), added_tokens=tokens,
        pre_tokenizer=dict(metaspace, prepend_scheme="always", split=True), post_processor=bos,
        decoder=dict(metaspace, prepend_scheme="always", split=True))
    yield "gemma", document(
        model, added_tokens=tokens, normalizer=replace, post_processor=bos,
        decoder=sequence("decoders", *decoder["decoders"][:3]))


def write(name, value):
    with open(os.path.join(HERE, name), "w", encoding="utf-8") as out:
        json.dump(value, out, ensure_ascii=True, separators=(",", ":"))
        out.write("\n")


def write_tokenizer(name, doc):
    path = name + ".json"
    write(path, doc)
    t = Tokenizer.from_file(os.path.join(HERE, path))
    cases = []
    for text in TEXTS:
        with_special = t.encode(text, add_special_tokens=True).ids
        cases.append({
            "text": text,
            "ids": t.encode(text, add_special_tokens=False).ids,
            "ids_special": with_special,
            "decoded": t.decode(with_special, skip_special_tokens=False),
            "decoded_skip": t.decode(with_special, skip_special_tokens=True)})
    write(name + ".cases.json", cases)


def code_points():
    return [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def ranges(matching):
    """Flat list: first, last, first, last, ..."""
    out = []
    for c in sorted(matching):
        if out and out[-1] == c - 1:
            out[-1] = c
        else:
            out += [c, c]
    return out


def write_unicode():
    everything = code_points()
    text = "".join(map(chr, everything))

    def removed_by(pre_tokenizer):
        kept = set()
        for i in range(0, len(text), 50000):
            for piece, _ in pre_tokenizer.pre_tokenize_str(text[i:i + 50000]):
                kept.update(map(ord, piece))
        return ranges(set(everything) - kept)

    classes = {}
    for pattern in [r"\s", r"\d", r"\w", r"\p{L}", r"\p{Lu}", r"\p{Ll}", r"\p{Lo}", r"\p{Lm}",
                    r"\p{M}", r"\p{N}", r"\p{P}", r"\p{S}", r"\p{Han}", r"\p{Latin}",
                    r"\p{Cyrillic}"]:
        classes[pattern] = removed_by(pre_tokenizers.Split(Regex(pattern), "removed"))
    numeric = [c for c in everything
               if len(pre_tokenizers.Digits(True).pre_tokenize_str("a" + chr(c))) == 2]
    whitespace = pre_tokenizers.Whitespace()
    word = [c for c in everything if len(whitespace.pre_tokenize_str("a" + chr(c))) == 1
            and whitespace.pre_tokenize_str("a" + chr(c))[0][0] != "a"]
    lower = normalizers.Lowercase()
    blocks = [range(b, b + 0x1000) for b in range(0, 0x32000, 0x1000)]
    blocks += [range(0xE0000, 0xE1000)]
    forms = {}
    for name in ["NFC", "NFD", "NFKC", "NFKD"]:
        form = getattr(normalizers, name)()
        forms[name] = [zlib.crc32("\n".join(
            form.normalize_str(t) for c in block if not 0xD800 <= c < 0xE000
            for t in (chr(c), "x\u0315" + chr(c) + "y", "x" + chr(c) + "\u0334y")
        ).encode("utf-8")) for block in blocks]
    write("unicode.json", {
        "classes": classes, "numeric": ranges(numeric), "word": ranges(word),
        "punctuation": removed_by(pre_tokenizers.Punctuation("removed")),
        "white_space": removed_by(pre_tokenizers.WhitespaceSplit()),
        "lower": zlib.crc32("".join(lower.normalize_str(chr(c)) for c in everything)
                            .encode("utf-8")),
        "blocks": [b.start for b in blocks], "forms": forms})


# Templates in the styles of known model families, and one for the corners of the language.
CHAT_TEMPLATES = {
    "chatml": """{% for message in messages %}
{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|im_start|>assistant\\n' }}
{% endif %}
""",
    "default_system": """{%- if messages and messages[0]['role'] == 'system' %}
    {%- set system = messages[0].content | trim %}
    {%- set rest = messages[1:] %}
{%- else %}
    {%- set system = "You are a patient assistant." %}
    {%- set rest = messages %}
{%- endif %}
{{- '<|im_start|>system\\n' ~ system ~ '<|im_end|>\\n' }}
{%- for message in rest %}
    {%- if (message.role == "user") or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' }}
    {%- elif message.role not in ['user', 'assistant'] %}
        {{- raise_exception('unknown role: ' + message.role) }}
    {%- endif %}
    {{- '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "inst": """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}\
{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}\
{% set system_message = false %}{% endif %}{% for message in loop_messages %}\
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}\
{% endif %}{% if loop.index0 == 0 and system_message != false %}\
{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}\
{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}\
{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}\
{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}\
{% endif %}{% endfor %}""",
    "headers": """{{- bos_token }}
{%- if strftime_now is not defined %}{{ raise_exception('no clock') }}{% endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{#- The system message comes first. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- tools | tojson(indent=4) }}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}""",
    "namespace": """{%- set ns = namespace(system='', turns=0, last=-1) %}
{%- for message in messages if message.role != 'tool' %}
  {%- if message.role == 'system' %}
    {%- set ns.system = message.content %}
  {%- else %}
    {%- set ns.turns = ns.turns + 1 %}
    {%- set ns.last = loop.index0 %}
  {%- endif %}
{%- else %}
nobody spoke
{%- endfor %}
{{ bos_token }}{{ ns.system if ns.system else 'none' }}|{{ ns.turns }}|{{ ns.last }}
{% for message in messages[::-1] %}
  {% if loop.last and loop.length > 1 %}{% break %}{% endif %}
  {%+ if message.content is string and message.content.startswith('H') %}+{% endif +%}
{{ loop.index }}/{{ loop.length }} {{ message.role | upper }}: {{ message['content'].split('l')[0] }}
{% endfor %}
""",
    "turns": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "corners": """  {# a comment #}
  {%- set text %}<{{ 1 + 2 * 3 - -1 }}{{ 7 // 2 }}{{ -7 % 3 }}>{% endset %}
{{ text }} {{ 'a' 'b' }} {{ "q\\"\\t\\u3042" }} {{ true }} {{ none }} {{ nothing }}
{{ messages | length }} {{ messages | map_missing if false }} {{ [1, 2, 3][-1] }} {{ {'k': 'v'}.k }}
{{ 'abc' in 'xabcx' }} {{ 4 not in [1, 2] }} {{ not nothing is defined }} {{ 1 if nothing }}
{% for key, value in {'a': 1, 'b': 'x'}.items() -%}
  {{ key }}={{ value }}{{ ',' if not loop.last }}
{%- endfor %}

{% for i in range(2, 6) %}{% if i == 3 %}{% continue %}{% endif %}{{ i }};{% endfor %}

{{- messages[0] | tojson }} {{ ['x', 2] | join('-') }} {{ 'a-b' | replace('-', '+') }}
{{ nothing | default('d') }} {{ '' | default('e', true) }} {{ 'xxaxx'.strip('x') }} {{ 'tItle x'.title() }}
{{ (1 == 1) and 'yes' or 'no' }} {{ 2 is even }} {{ messages is iterable }} {{ 3 > 2 }} {{ 'a' < 'b' }}
\t{% if true %}
\tkept
\t{% endif %}
{{ messages[99] is undefined }}{{ messages[0].get('zzz', 'fallback') }}
{% generation %}G{% endgeneration %}
end
""",
}

CONVERSATIONS = [
    [("user", "Hello")],
    [("system", " Be brief. "), ("user", "Hello there"), ("assistant", " Hi. "), ("user", "Bye\n")],
    [("user", "Hi"), ("user", "again")],
    [("system", "only <b>\u3042 & \"quotes\"</b>")],
    [("tool", "result"), ("user", "  x\u00a0")],
]


def write_chat():
    def refuse(message):
        raise jinja2.exceptions.TemplateError(message)

    class Generation(jinja2.ext.Extension):
        """Marks the assistant's text; renders as what it holds."""
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.Scope(body).set_lineno(line)

    # The environment of transformers.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = lambda x, indent=None: json.dumps(
        x, ensure_ascii=False, indent=indent)
    environment.filters["map_missing"] = lambda x: x
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = lambda f: f
    cases = []
    for name, source in CHAT_TEMPLATES.items():
        compiled = environment.from_string(source)
        for conversation in CONVERSATIONS:
            for prompt in [False, True]:
                messages = [{"role": r, "content": c} for r, c in conversation]
                try:
                    text = compiled.render(messages=messages, add_generation_prompt=prompt,
                                           tools=None, documents=None, bos_token="<s>",
                                           eos_token="</s>")
                except jinja2.exceptions.TemplateError:
                    text = None
                cases.append({"template": name, "messages": conversation, "prompt": prompt,
                              "text": text})
    write("chat.json", {"templates": CHAT_TEMPLATES, "cases": cases})


def main():
    os.makedirs(HERE, exist_ok=True)
    for name, doc in list(byte_level_documents()) + list(metaspace_documents()):
        write_tokenizer(name, doc)
    write_unicode()
    write_chat()
    print("tokenizers", tokenizers.__version__)


if __name__ == "__main__":
    main()
