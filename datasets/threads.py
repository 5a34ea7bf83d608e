"""Work on many files at a time, with a bar where that takes longer than a moment."""

import concurrent.futures
from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar('Item')
Result = TypeVar('Result')


def over(
    function: Callable[[Item], Result], items: Iterable[Item], title: str, at_once: int = 1
) -> list[Result]:
    """The results for all items, in their order.

    A thread takes `at_once` of them: handing over one costs as much as a short read.
    """
    from devices import processes

    items, found = list(items), []
    groups = [items[i : i + at_once] for i in range(0, len(items), at_once)]
    options = {
        'total': len(items),
        'unit': 'file',
        'desc': title,
        'delay': processes.SILENT_SECONDS,
    }
    with concurrent.futures.ThreadPoolExecutor() as pool, processes.bar(**options) as bar:
        for results in pool.map(lambda group: [function(item) for item in group], groups):
            found += results
            bar.update(len(results))
    return found
