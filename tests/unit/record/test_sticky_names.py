from batsignal.record.sticky_names import NAME_LIFE_SECONDS, StickyNames


def test_sticky_name_stays_while_it_is_used() -> None:
    names = StickyNames(1)
    for hour in range(10):
        assert names.admit("web", hour * NAME_LIFE_SECONDS) == "web"
        assert names.admit("api", hour * NAME_LIFE_SECONDS + 1) == "other"
