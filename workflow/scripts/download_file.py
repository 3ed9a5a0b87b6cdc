"""Fetch one file, verified against the published MD5 where there is a list of them."""

from pathlib import Path

from job import job
from longscale.genome.download import fetch, published_md5

with job(snakemake, echo=True) as report:
    source = snakemake.params.url or snakemake.input.source[0]
    # A plain path is taken like any other source, through its file:// address.
    url = source if "://" in source else Path(source).absolute().as_uri()
    sums = snakemake.input.get("md5checksums")
    md5 = published_md5(sums, url.rstrip("/").rsplit("/", 1)[-1]) if sums else None
    if md5 is None:
        report(f"{url}: no published MD5 is configured, so none is checked")
    fetch(url, snakemake.output[0], md5=md5, report=report)
