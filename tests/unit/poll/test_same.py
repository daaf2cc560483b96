from batsignal.poll.same import TEXTS_MOST, SameTexts


def text(n: int) -> str:
    return f"name-{n}"


def test_equal_texts_are_the_object_that_came_first() -> None:
    same = SameTexts()
    first = same.of(text(1))
    assert same.of(text(1)) is first
    assert same.of(text(2)) == "name-2"


def test_names_without_end_are_not_kept() -> None:
    same = SameTexts()
    first = same.of(text(0))
    for n in range(1, TEXTS_MOST + 1):
        same.of(text(n))
    assert same.of(text(0)) is not first
