"""The report of a soak, to be read."""


def text_of(report):
    """Some twenty lines: what was done, what came of it, what is wrong."""
    plan, sts, disk = report["plan"], report["sts"], report["disk_cache"]
    writing = report["writing"]
    read_gib = sum(report["read_bytes"].values()) / (1 << 30)
    lines = [
        f"{report['elapsed_s'] / 60:.1f} minutes, tokens of {plan['lifetime_s']:g} s",
        f"attempts       {sum(report['attempts'].values())}: {_pairs(report['attempts'])}",
        f"bytes checked  {read_gib:.1f} GiB, wrong attempts: {report['wrong']}",
        f"errnos         {_pairs(report['errnos']) or 'none'}",
        f"faults         {_pairs(report['faults'])}",
        f"meanwhile      {report['replacements']} replacements, {report['readers_killed']} killed"
        f" readers, {report['bytes_flipped']} bytes flipped, {report['cache_clears']} times"
        " cleared",
        f"commands       {_pairs(report['commands'])}",
        f"STS calls      {sts['calls']}, explained: {sts['at_most']} ({sts['by_time']} by time,"
        f" {sts['called_expired']} called expired, {sts['failures']} failures)",
        f"written        {sum(writing['operations'].values())}: {_pairs(writing['operations'])}",
        f"refused        {_pairs(writing['refused']) or 'none'}",
        f"daemon killed  {writing['kills']} times, {writing['found_in_recover']} contents found by"
        f" recover, {writing['given_up']} given up when compared, left at the end:"
        f" {_pairs(writing['left_at_the_end']) or 'none'}"
        + ("" if writing["small_disk"] else ", no small staging disk without an administrator"),
        "requests       "
        + _pairs({kind: n["count"] for kind, n in report["requests"].items()})
        + f", {sum(n['retries'] for n in report['requests'].values())} repeated,"
        f" {sum(n['failures'] for n in report['requests'].values())} in vain",
        f"disk cache     {disk['state']}, {disk['damaged']} damaged reads noticed",
        f"log lines      {_pairs(report['log_lines']) or 'none above INFO'}",
        f"inodes         {report['inodes_at_the_end']} once the kernel had forgotten all",
    ]
    lines += [_level(name, level) for name, level in report["levels"].items()]
    lines += [f"PROBLEM: {each}" for each in report["problems"]] or ["nothing is wrong"]
    return "\n".join(lines)


def _pairs(counts):
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _level(name, level):
    unit = f" {level['unit']}" if level["unit"] else ""
    return (
        f"{name:22} {level['first']:g}, {level['middle']:g}, {level['last']:g}{unit}"
        f" (medians of thirds), at most {level['peak']:g};"
        f" {'level' if level['is_level'] else 'NOT LEVEL'} within {level['tolerance']:g}"
    )
