"""Variant files of several formats, read row by row as text; nothing is judged here.

CSV and TSV (`.csv`, `.tsv`, `.txt`, each also `.gz`), Parquet (`.parquet`, `.pq`), VCF and BCF
(`.vcf`, `.vcf.gz`, `.vcf.bgz`, `.bcf`). `pos` is 1-based in all of them.
"""

import csv
import difflib
import gzip
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pysam

from longscale.errors import LongscaleError

REQUIRED_COLUMNS = ("contig", "pos", "ref", "alt", "label")
OPTIONAL_COLUMNS = ("split", "tissue")
VCF_COLUMNS = ("label", *OPTIONAL_COLUMNS)
"""What a VCF does not have at a fixed place: the column map names INFO keys for these."""

_PARQUET_BATCH_ROWS = 50_000

# The csv module's own limit of 131,072 would refuse a file for one long allele; without any, a
# quotation mark that is never closed would take the rest of the file into memory.
csv.field_size_limit(1 << 24)


class RawVariant(NamedTuple):
    """One row of a variant file as it stands there.

    `line` is the 1-based line of the input file on which the row begins (header lines count; for
    Parquet and BCF, which have no lines, the 1-based row). `alts` has one entry per ALT allele.
    Missing values are "". `problem`, where not "", is a sentence that says why the row could not be
    taken apart.
    """

    line: int
    contig: str = ""
    pos: str = ""
    ref: str = ""
    alts: tuple[str, ...] = ()
    label: str = ""
    split: str = ""
    tissue: str = ""
    problem: str = ""


def read_variants(path: str | Path, columns: Mapping[str, str]) -> Iterator[RawVariant]:
    """Yield the rows of a variant file; the format follows from the suffix.

    `columns` maps contig, pos, ref, alt, label and optionally split and tissue to the file's column
    names. In VCF and BCF the first four have their place: there label (and split, tissue) map to
    INFO keys. Several ALT alleles are separated by commas. A row that cannot be taken apart is
    yielded with its `problem`; a file that cannot be read, lacks a column or holds no row raises
    LongscaleError.
    """
    path = Path(path)
    name = path.name.lower()
    if not path.is_file():
        raise LongscaleError(f"{path}: this file does not exist; a variant file is expected")
    if name.endswith((".vcf", ".vcf.gz", ".vcf.bgz", ".bcf")):
        _check_column_map(path, columns, ("label",))
        rows = _read_vcf(path, columns)
    elif name.endswith((".parquet", ".pq")):
        _check_column_map(path, columns, REQUIRED_COLUMNS)
        rows = _read_parquet(path, columns)
    elif name.removesuffix(".gz").endswith((".csv", ".tsv", ".txt")):
        _check_column_map(path, columns, REQUIRED_COLUMNS)
        rows = _read_delimited(path, columns)
    else:
        raise LongscaleError(
            f"{path}: the suffix names no known format; .csv, .tsv, .txt (also .gz), .parquet, "
            ".vcf, .vcf.gz or .bcf is expected"
        )
    return _some(path, rows)


def _some(path: Path, rows: Iterable[RawVariant]) -> Iterator[RawVariant]:
    """Pass rows on; a file without any is an error."""
    row = None
    for row in rows:
        yield row
    if row is None:
        raise LongscaleError(f"{path}: the file holds no variant; at least one row is expected")


def _check_column_map(path: Path, columns: Mapping[str, str], required: Sequence[str]) -> None:
    known = REQUIRED_COLUMNS + OPTIONAL_COLUMNS
    for key in columns:
        if key not in known:
            raise LongscaleError(
                f"{path}: the column map has the unknown key '{key}'; known are {', '.join(known)}"
            )
    for key in required:
        if not columns.get(key):
            raise LongscaleError(
                f"{path}: the column map does not say where '{key}' stands"
                + ("; variants without a label cannot be evaluated" if key == "label" else "")
            )


def _missing_column(path: Path, key: str, name: str, present: Sequence[str], what: str) -> str:
    """The sentence for a column that the map names and the file lacks."""
    folded = {other.casefold(): other for other in present}
    near = difflib.get_close_matches(name.casefold(), folded, n=3)
    hint = ", ".join(f"'{folded[other]}'" for other in near) or ", ".join(present[:20]) or "none"
    kind = "nearest" if near else "present"
    wanted = "; variants without a label cannot be evaluated" if key == "label" else ""
    return f"{path}: the {what} '{name}' (for {key}) is missing; {kind}: {hint}{wanted}"


def _column_indices(
    path: Path, columns: Mapping[str, str], header: Sequence[str]
) -> dict[str, int]:
    """Where each mapped column stands in the header."""
    indices = {}
    for key, name in columns.items():
        if name not in header:
            raise LongscaleError(_missing_column(path, key, name, header, "column"))
        if header.count(name) > 1:
            raise LongscaleError(
                f"{path}: the column '{name}' (for {key}) occurs {header.count(name)} times; "
                "it must occur once"
            )
        indices[key] = header.index(name)
    return indices


def _raw(line: int, values: Mapping[str, str]) -> RawVariant:
    alts = tuple(values["alt"].split(",")) if values["alt"] else ()
    return RawVariant(
        line,
        values["contig"],
        values["pos"],
        values["ref"],
        alts,
        values["label"],
        values.get("split", ""),
        values.get("tissue", ""),
    )


def _open_text(path: Path) -> IO[str]:
    """A text file, gzipped or not; a byte order mark is skipped."""
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    return opener(path, "rt", encoding="utf-8-sig", newline="")


def _read_delimited(path: Path, columns: Mapping[str, str]) -> Iterator[RawVariant]:
    """CSV or TSV as variants."""
    for row in read_delimited(path, columns):
        if row.problem:
            yield RawVariant(row.line, problem=row.problem)
        else:
            yield _raw(row.line, dict(zip(columns, row.values, strict=True)))


class DelimitedRow(NamedTuple):
    """One row of a delimited file: its 1-based line, the values asked for, or what is wrong."""

    line: int
    values: tuple[str, ...] = ()
    problem: str = ""


def read_delimited(path: str | Path, columns: Mapping[str, str]) -> Iterator[DelimitedRow]:
    """Yield the rows of a CSV or TSV file (also `.gz`), read by Python's csv module, which knows
    on which line it is.

    `columns` maps our keys to the file's column names, in any order, others are passed over;
    `values` come in the order of `columns`. A row with another number of fields than the header is
    yielded with its `problem`; blank lines are no rows. LongscaleError where the file cannot be
    read, is empty or lacks a column.
    """
    path = Path(path)
    delimiter = "," if path.name.lower().removesuffix(".gz").endswith(".csv") else "\t"
    line = 1
    try:
        with _open_text(path) as handle:
            reader = csv.reader(handle, delimiter=delimiter)
            header = [name.strip() for name in next(reader, [])]
            if not header:
                raise LongscaleError(
                    f"{path}: the file is empty; a header line that names the columns is expected"
                )
            indices = _column_indices(path, columns, header).values()
            line = reader.line_num + 1
            for fields in reader:
                if len(fields) == len(header):
                    yield DelimitedRow(line, tuple([fields[index] for index in indices]))
                elif fields:  # a blank line is no row
                    yield DelimitedRow(line, problem=_field_count(len(fields), len(header)))
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise LongscaleError(
            f"{path}: line {_line_of_bad_text(path)}: not UTF-8 text ({error})"
        ) from error
    except (csv.Error, OSError, EOFError, zlib.error) as error:
        raise LongscaleError(f"{path}: line {line} cannot be read: {error}") from error


def _line_of_bad_text(path: Path) -> int:
    """The first line that is not UTF-8 (decoding runs ahead of the lines that are read)."""
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rb") as handle:
        for number, line in enumerate(handle, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return number


def _field_count(found: int, expected: int) -> str:
    fields = "field" if found == 1 else "fields"
    return f"the row has {found} {fields} where the header has {expected}"


def _read_parquet(path: Path, columns: Mapping[str, str]) -> Iterator[RawVariant]:
    """Parquet in batches; numbers and booleans as text, nulls as ""."""
    line = 0
    try:
        with pq.ParquetFile(path) as file:
            _column_indices(path, columns, file.schema_arrow.names)
            names = list(dict.fromkeys(columns.values()))
            for batch in file.iter_batches(_PARQUET_BATCH_ROWS, columns=names):
                texts = {key: _texts(batch.column(name)) for key, name in columns.items()}
                for values in zip(*texts.values(), strict=True):
                    line += 1
                    yield _raw(line, dict(zip(texts, values, strict=True)))
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise LongscaleError(f"{path}: not a readable Parquet file: {reason}") from error


def _texts(column: pa.Array) -> list[str]:
    return pc.fill_null(pc.cast(column, pa.string()), "").to_pylist()


def _read_vcf(path: Path, columns: Mapping[str, str]) -> Iterator[RawVariant]:
    """VCF or BCF through htslib; FILTER, QUAL and genotypes are not looked at."""
    verbosity = pysam.set_verbosity(0)  # htslib's own remarks are told by our sentences
    line, unit = 0, ""
    try:
        with _open_vcf(path) as file:
            info = file.header.info
            keys = {key: columns[key] for key in VCF_COLUMNS if columns.get(key)}
            for key, name in keys.items():
                if name not in info:
                    raise LongscaleError(_missing_column(path, key, name, list(info), "INFO key"))
            flags = {name for name in keys.values() if info[name].type == "Flag"}
            unit, line = "record" if file.is_bcf else "line", _vcf_header_lines(file)
            if not file.is_bcf:
                _read_as_text(file.header, keys.values())
            for record in file:
                values = {
                    key: _info_text(record.info, name, name in flags) for key, name in keys.items()
                }
                row = RawVariant(
                    line + 1,
                    record.chrom,
                    str(record.pos),
                    record.ref or "",
                    record.alts or (),
                    **values,
                )
                line += 1
                yield row
    except (OSError, ValueError, KeyError, EOFError, zlib.error) as error:
        # What htslib says of a file that it cannot open names our own copy of it.
        place = f"{unit} {line + 1} cannot be read ({error})" if unit else "cannot be read"
        row = "the row is malformed (say, POS is no number) or the file " if unit else "it "
        raise LongscaleError(
            f"{path}: {place}: {row}is cut off, damaged or no VCF (columns between tabs) or BCF"
        ) from error
    finally:
        pysam.set_verbosity(verbosity)


@contextmanager
def _open_vcf(path: Path) -> Iterator[pysam.VariantFile]:
    """A VCF or BCF. What gzip and not bgzip has packed is unpacked first: pysam cannot read it."""
    with ExitStack() as stack:
        if _is_gzip(path):
            plain = stack.enter_context(NamedTemporaryFile(suffix=".vcf"))
            shutil.copyfileobj(stack.enter_context(gzip.open(path)), plain)
            plain.flush()
            path = Path(plain.name)
        yield stack.enter_context(pysam.VariantFile(str(path), drop_samples=True))


def _is_gzip(path: Path) -> bool:
    """Whether gzip has packed a file: bgzip writes an extra field (SAM specification, 4.1)."""
    with path.open("rb") as handle:
        head = handle.read(14)
    return head[:2] == b"\x1f\x8b" and head[12:14] != b"BC"


def _read_as_text(header: pysam.VariantHeader, names: Iterable[str]) -> None:
    """Declare INFO keys anew as text, so that values arrive as they stand in the file.

    Of what is declared as an integer htslib takes the digits in front: it would make 0 of 0.7. A
    BCF has numbers in it, and nothing can be done there.
    """
    for name in dict.fromkeys(names):
        header.info.remove_header(name)
        header.add_line(f'##INFO=<ID={name},Number=.,Type=String,Description="{name}">')


def _info_text(info: Mapping[str, Any], name: str, is_flag: bool) -> str:
    """An INFO value as it stands in the file; a flag is 1 where set and 0 where absent."""
    if name not in info:
        return "0" if is_flag else ""
    value = info[name]
    if is_flag and value in (True, ()):  # (): a key without a value, read as text
        return "1"
    return ",".join(map(_entry_text, value if isinstance(value, tuple) else (value,)))


def _entry_text(entry: Any) -> str:
    if isinstance(entry, float):
        return str(np.float32(entry))  # what a BCF holds: 0.7, not 0.699999988079071
    return "" if entry in (None, ".") else str(entry)


def _vcf_header_lines(file: pysam.VariantFile) -> int:
    """Number of header lines of a VCF (gzip reads what bgzip writes), 0 for BCF, which has none."""
    if file.is_bcf:
        return 0
    opener = open if file.compression == "NONE" else gzip.open
    with opener(file.filename, "rb") as handle:
        return next((count for count, text in enumerate(handle) if not text.startswith(b"#")), 0)
