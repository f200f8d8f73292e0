"""What a Record may hold, for hypothesis: `st.from_type(Record)` draws from all of it once imported."""

from hypothesis import strategies as st

from sdg.defects import BOX_SCALE, DROPPED_ITEM, Defect, DefectType, Diagnosis, Status
from sdg.records import Record

texts = st.text(st.characters(exclude_categories=()), max_size=30) | st.sampled_from(
    [
        "",
        " ",
        "null",
        "</answer>",
        "a <think> b",
        '"quoted"\n\tline',
        "\u2028",
        "né 猫 🐈",
        "\ud800",
        "_metadata",
    ]
)
names = st.none() | texts.filter(bool) | st.sampled_from(["7", "07", "alice@example.org", "FLUX.2-dev"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)
# Keys that a format gives a meaning of its own must survive as metadata too.
OWN_KEYS = (
    "filepath filename caption prompt response status error ann_translated_bboxes ann_response generator "
    "split annotator metadata _metadata _diagnosis id file_name width height annotated image data defects"
)
keys = texts | st.sampled_from(OWN_KEYS.split())


@st.composite
def boxes(draw):
    x0, y0 = draw(st.tuples(*[st.integers(0, BOX_SCALE - 1)] * 2))
    return x0, y0, draw(st.integers(x0 + 1, BOX_SCALE)), draw(st.integers(y0 + 1, BOX_SCALE))


defects = st.builds(
    Defect,
    boxes(),
    st.sampled_from(DefectType),
    texts,
    st.none() | st.integers(1, 100),
    st.none() | texts | st.just("wrong colour"),
)
repairs = st.lists(st.sampled_from([DROPPED_ITEM, "code-fence"]), max_size=2).map(tuple)
answers = st.builds(
    Diagnosis,
    st.lists(defects, max_size=3).map(tuple),
    texts,
    st.sampled_from([Status.OK, Status.REPAIRED, Status.TRUNCATED]),
    texts,
    repairs,
)
diagnoses = (
    answers
    | st.builds(Diagnosis, st.just(()), texts, st.just(Status.UNPARSEABLE), texts, repairs)
    | st.builds(Diagnosis, st.just(()), texts, st.just(Status.FAILED), texts, repairs, texts)
)
records = st.builds(
    Record,
    texts.filter(bool),
    texts,
    st.none() | diagnoses,
    names,
    names,
    names,
    st.dictionaries(keys, json_values, max_size=3),
)

st.register_type_strategy(Defect, defects)
st.register_type_strategy(Diagnosis, diagnoses)
st.register_type_strategy(Record, records)
