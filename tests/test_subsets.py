import pytest

from jnf_jax import subsets

FOUR, SIXTEEN = ("a", "b", "c", "d"), tuple(f"m{i}" for i in range(16))


def sizes(chosen):
    return [sum(len(s) == n for s in chosen) for n in range(1, max(map(len, chosen)) + 1)]


def test_all_are_the_proper_ones():
    assert subsets.choose(FOUR, "all") == subsets.proper(FOUR)
    assert subsets.choose(FOUR, "sizes:10") == subsets.proper(FOUR)
    assert subsets.choose(FOUR, "random:99") == subsets.proper(FOUR)


def test_as_many_of_every_size_evenly_spaced():
    assert sizes(subsets.choose(SIXTEEN, "sizes")) == [4] * 15
    chosen = subsets.choose(SIXTEEN, "sizes:3")
    assert sizes(chosen) == [3] * 15
    assert len(set(chosen)) == len(chosen)
    for size in (1, 2, 8):
        mine, every = [s for s in chosen if len(s) == size], subsets.of_size(SIXTEEN, size)
        assert (mine[0], mine[-1]) == (every[0], every[-1])
    assert sizes(subsets.choose(FOUR, "sizes:1")) == [1, 1, 1]


def test_drawn_ones_are_proper_different_and_the_same_again():
    chosen = subsets.choose(SIXTEEN, "random:40")
    assert len(set(chosen)) == 40
    assert chosen == subsets.choose(SIXTEEN, "random:40")
    assert all(0 < len(s) < 16 and s == subsets.ordered(SIXTEEN, s) for s in chosen)
    assert [len(s) for s in chosen] == sorted(len(s) for s in chosen)
    few = subsets.choose(FOUR, "random:13")  # all but one
    assert set(few) < set(subsets.proper(FOUR))


@pytest.mark.parametrize("how", ["", "some", "sizes:0", "sizes:-1", "random", "random:0", "random:x", "all:3"])
def test_anything_else_is_refused(how):
    with pytest.raises(ValueError, match=f"Expected subsets 'all'.* got '{how}'"):
        subsets.choose(FOUR, how)
