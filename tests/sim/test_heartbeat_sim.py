"""Seeds of the simulation that run with every test run; `scripts/sim --seeds N` runs more, `--seed N` replays one."""

from __future__ import annotations

import os

import pytest

from haptk.core.heartbeat.model import Failback, Health, Outcome, Seen
from tests.sim.checkers import Violation, check_end, check_takeover
from tests.sim.scenarios import run_seed
from tests.sim.world import World

SEEDS = int(os.environ.get("HAPTK_SIM_SEEDS", "600"))
"""Those of every test run; .ci/run has 20,000 in a step of its own (scripts/sim)."""

CHUNK = 50


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_invariants_hold_under_faults(first: int) -> None:
    for seed in range(first, first + CHUNK):
        result = run_seed(seed)
        shown = "\n".join(result.world.transcript)
        assert not result.violation, f"seed {seed}: {result.violation}\nreplay: scripts/sim --seed {seed}\n{shown}"


def test_the_same_seed_is_the_same_run() -> None:
    assert run_seed(7).world.transcript == run_seed(7).world.transcript


@pytest.mark.parametrize("seed", range(0, 400, 16))
def test_the_short_wire_changes_nothing(seed: int) -> None:
    """Most seeds run without digests and framing; every decision has to be the same with them."""
    assert run_seed(seed).world.transcript == run_seed(seed, whole_wire=True).world.transcript


def pair(seed: int = 1, **fields: object) -> World:
    world = World(seed, **fields)  # type: ignore[arg-type]
    world.boot("a")
    world.boot("b")
    return world


@pytest.mark.parametrize("kind", ["exclusive", "script"])
@pytest.mark.parametrize("seed", range(20))
def test_takeover_within_deadtime_and_one_keepalive(seed: int, kind: str) -> None:
    world = pair(seed, kind=kind)
    killed_at = 20 + seed * 0.37
    world.run(killed_at)
    assert world.serving() == "a"
    world.crash("a")
    taken_at = None
    while world.now < killed_at + 20 and taken_at is None:
        world.run(world.now + 0.01)
        taken_at = world.now if world.boxes["b"].believes() else None
    check_takeover(world, killed_at, taken_at, world.op_s[1])


@pytest.mark.parametrize("kind", ["exclusive", "script"])
@pytest.mark.parametrize("ways", ["both", "a", "b"])
def test_a_healed_partition_never_leaves_nobody(kind: str, ways: str) -> None:
    """The original restarts both nodes at the heal and serves nothing for 20.8 s."""
    world = pair(kind=kind)
    nobody: list[float] = []
    world.run(20)
    world.watchers.append(lambda w: nobody.append(w.now) if w.serving() is None else None)
    for one, other in (("a", "b"), ("b", "a")):
        if ways in ("both", one):
            world.cut(one, other)
    world.run(40)
    world.heal()
    world.run(80)
    assert not nobody
    check_end(world)


def test_two_nodes_that_start_together_serve_within_two_seconds() -> None:
    """The original waits for 11.7 to 13.4 s."""
    world = pair()
    world.run(2.0)
    assert world.serving() == "a"


def test_a_sick_holder_hands_over_and_nobody_drops_it() -> None:
    world = World(3)
    for box in world.boxes.values():
        box.health = Health.UP
    world.boot("a")
    world.boot("b")
    world.run(10)
    assert world.serving() == "a"
    world.set_health("a", Health.DOWN)
    world.run(12)
    assert world.serving() == "b"
    world.set_health("b", Health.DOWN)  # nobody better is left
    world.run(40)
    assert world.serving() == "b"
    assert [holder for _, holder in world.address.history] == [None, "a", "b"]


def test_a_sick_node_refuses_to_take() -> None:
    world = World(4)
    for box in world.boxes.values():
        box.health = Health.UP
    world.boot("a")
    world.boot("b")
    world.run(10)
    world.set_health("b", Health.DOWN)
    world.run(11)
    node = world.boxes["a"].node
    assert node is not None
    node.peer.health = Health.UP  # as if its last status had been lost
    assert node.give(node.negotiation.holdings.hold("b"), world.now) == ""
    world.run(40)
    assert world.serving() == "a"
    assert any("refused, our own check is down" in line for line in world.transcript)


@pytest.mark.parametrize("failback", [Failback.ON, Failback.OFF])
def test_failback(failback: Failback) -> None:
    world = World(5)
    world.failback = failback
    world.boot("a")
    world.boot("b")
    world.run(10)
    world.crash("a")
    world.run(20)
    assert world.serving() == "b"
    world.boot("a")
    world.run(30)
    assert world.serving() == ("a" if failback is Failback.ON else "b")


def test_kill_of_the_daemon_alone_keeps_the_resource_through_its_restart() -> None:
    world = pair()
    world.run(10)
    world.crash("a", resource_survives=True)
    world.run(11)
    world.boot("a")
    world.run(20)
    assert world.serving() == "a"
    assert any("ours already" in line for line in world.transcript)
    assert [holder for _, holder in world.address.history] == [None, "a"]


def test_no_witness_no_takeover() -> None:
    world = World(6)
    world.witnesses = ("10.0.0.254",)
    world.boot("a")
    world.boot("b")
    world.run(20)
    world.boxes["b"].witness = False
    world.cut("a", "b")
    world.cut("b", "a")
    world.run(60)
    assert [holder for _, holder in world.address.history] == [None, "a"]
    assert any("we are cut off ourselves" in line for line in world.transcript)


def test_a_checker_sees_what_it_is_for() -> None:
    """A world that lies must be caught: the checkers can fail."""
    world = pair()
    world.run(20)
    world.address.put("b", world.now)
    with pytest.raises(Violation, match="a believes to hold it, and b has it"):
        check_end(world)
    with pytest.raises(Violation, match="taken over never"):
        check_takeover(world, 0.0, None, 0.3)


def test_a_replay_after_a_restart_is_refused() -> None:
    """The original forgets the peer's generation at its own restart and then believes a recording of a dead peer."""
    world = pair()
    recorded: list[bytes] = []
    carry = world._carry

    def record(box: object, data: bytes) -> None:
        if box is world.boxes["b"]:
            recorded.append(data)
        carry(box, data)  # type: ignore[arg-type]

    world._carry = record  # type: ignore[method-assign]
    world.run(10)
    world.crash("b")
    world.boot("b")  # a newer generation, which a remembers
    world.run(15)
    old = recorded[:20]
    world.crash("b")
    world.crash("a")
    world.boot("a")
    world.run(16)
    for data in old:
        world._deliver(world.boxes["a"], data)
    node = world.boxes["a"].node
    assert node is not None
    assert not node.peer.ever_heard
    assert any("attempted replay attack" in line for line in world.transcript)


def test_a_recording_with_an_old_clock_is_refused_and_a_wrong_clock_is_not() -> None:
    world = pair()
    recorded: list[bytes] = []
    carry = world._carry
    world._carry = lambda box, data: (
        (recorded.append(data), carry(box, data))[1] if box.name == "b" else carry(box, data)
    )  # type: ignore[method-assign]
    world.run(10)
    # b dies; a loses its memory of it and starts an hour later, when the recording is played.
    world.crash("b")
    world.crash("a")
    world.boxes["a"].remembered = type(world.boxes["a"].remembered)({}, {})
    world.step_clock("a", 3600)
    world.boot("a")
    world.run(11)
    for data in recorded[:20]:
        world._deliver(world.boxes["a"], data)
    node = world.boxes["a"].node
    assert node is not None
    assert not node.peer.ever_heard
    world._carry = carry  # type: ignore[method-assign]
    world.boot("b")  # the real b, whose clock is an hour behind now
    world.run(20)
    assert node.peer.able
    assert any("has proved that it is alive" in line for line in world.transcript)


@pytest.mark.parametrize("at", ["carry", "script"])
def test_a_start_that_fails_is_never_reported_as_held(at: str) -> None:
    """The original says that it holds what it could not start, and so does its peer: nobody runs it."""
    world = World(8, kind="script" if at == "script" else "exclusive")
    world.boxes["a"].broken = True
    held_while_broken: list[str] = []

    def watch(w: World) -> None:
        node = w.boxes["a"].node
        if w.boxes["a"].broken and node is not None and node.negotiation.holdings.held():
            held_while_broken.append(str(w.now))

    world.watchers.append(watch)
    world.boot("a")
    world.boot("b")
    world.run(30)
    assert not held_while_broken
    assert world.serving() == "b"


def test_nodes_with_other_groups_fall_back_to_the_four_words() -> None:
    """Group numbers of a peer with another haresources would name the wrong groups."""
    world = pair()
    world.run(10)
    node = world.boxes["b"].node
    assert node is not None
    assert node.peer.claims == {0}
    node.peer.fingerprint = "00000000"
    node.peer.note_extras({})
    world.run(12)
    assert node.peer.claims is None
    assert any("has other resources than we have" in line for line in world.transcript)
    world.run(40)
    assert world.serving() == "a"
    check_end(world)


@pytest.mark.parametrize("verb", ["stop", "standby"])
def test_what_does_not_stop_here_is_not_started_there(verb: str) -> None:
    """The original reboots the machine; a script that cannot be stopped is held, and nobody else may start it."""
    world = pair(kind="script")
    world.run(10)
    world.boxes["a"].stuck = True
    node = world.boxes["a"].node
    assert node is not None
    if verb == "stop":
        world.stop("a")
    else:
        assert not node.give(node.negotiation.holdings.hold("b"), world.now)
    world.run(40)
    assert [box.running for box in world.boxes.values()] == [True, False]
    world.boxes["a"].stuck = False
    world.run(60)
    assert world.serving() == ("b" if verb == "stop" else "a")
    assert world.boxes["a"].finished == (verb == "stop")


def test_an_api_that_is_down_at_the_take_over_is_asked_again_soon() -> None:
    world = pair()
    world.run(20)
    world.account.mode = "down"
    world.crash("a")
    world.run(30)
    assert world.serving() == "a"
    world.account.mode = "up"
    world.run(36)
    assert world.serving() == "b"
    check_end(world)


def test_two_pairs_on_one_segment_do_not_disturb_each_other() -> None:
    """Five machines: the other pair's packets come in, with our key or another, and the account is shared."""
    for key in (b"secret", b"another"):
        world = World(11, nodes=5)
        world.pairs[1].key = key
        world.broadcast = True
        for name in world.boxes:
            world.boot(name)
        world.run(20)
        assert [world.serving(pair) for pair in world.pairs] == ["a", "c"]
        assert [world.boxes[name].node.peer.name for name in "abcd"] == ["b", "a", "d", "c"]  # type: ignore[union-attr]
        world.crash("a")
        world.run(40)
        assert [world.serving(pair) for pair in world.pairs] == ["b", "c"]
        check_end(world)
        assert not [say for _, name, say in world.events if name in "cd" and say.event == "peer_dead"]


def test_a_slow_disk_delays_a_start_and_nothing_else() -> None:
    world = pair()
    world.run(10)
    world.boxes["b"].disk = "slow"
    world.crash("a")
    world.boot("a")
    world.run(20)  # b has to remember a's new generation meanwhile
    assert not [say for _, _, say in world.events if say.event == "peer_dead"]
    world.crash("b", resource_survives=True)
    booted = len(world.transcript)
    world.boot("b")
    world.run(20.9)
    assert world.boxes["b"].node is None
    world.run(40)
    assert world.boxes["b"].node is not None
    assert any("its disk is slow" in line for line in world.transcript[booted:])
    check_end(world)


def test_a_broken_disk_keeps_a_node_silent_until_it_is_mended() -> None:
    world = pair()
    world.run(10)
    world.crash("b")
    world.boxes["b"].disk = "broken"
    world.boot("b")
    world.run(30)
    generation = world.boxes["b"].generation
    assert world.boxes["b"].node is None
    world.boxes["b"].disk = "well"
    world.run(40)
    assert world.boxes["b"].generation == generation + 1
    check_end(world)


def cut_off(world: World) -> None:
    world.cut("a", "b")
    world.cut("b", "a")


@pytest.mark.parametrize("leases", [False, True])
def test_a_cut_makes_two_holders_of_a_script_unless_there_is_a_lease(leases: bool) -> None:
    world = World(12, kind="script")
    world.leases = leases
    world.boot("a")
    world.boot("b")
    world.run(15)
    cut_off(world)
    world.run(60)
    assert [box.running for box in world.boxes.values()] == [True, not leases]
    world.crash("a")
    world.run(80)
    assert world.boxes["b"].running


@pytest.mark.parametrize("store", ["down", "slow"])
def test_a_lease_store_that_is_silent_stops_takers_and_never_the_holder(store: str) -> None:
    world = World(13, kind="script")
    world.leases = True
    world.boot("a")
    world.boot("b")
    world.run(15)
    world.account.store = store
    world.run(60)
    assert world.boxes["a"].believes()
    assert not [say for _, _, say in world.events if say.event in ("resource_stop", "peer_dead")]
    world.crash("a")
    world.run(90)
    assert world.boxes["b"].believes() == (store == "slow")  # slow is an answer, sooner or later
    world.account.store = "up"
    world.run(100)
    check_end(world)


def test_what_is_said_once_is_said_once_for_each_occasion() -> None:
    world = World(17, kind="script")
    world.leases = True
    world.boot("a")
    world.boot("b")
    world.run(15)
    for cut_at in (15, 45):
        world.run(cut_at)
        cut_off(world)
        world.run(cut_at + 20)
        world.heal()
    said = [say for _, name, say in world.events if name == "b" and "before its lease is ours" in say.text]
    assert len(said) == 2


def test_a_lease_does_not_delay_a_takeover() -> None:
    """The watcher has seen the lease stand still by the time the peer is dead: one request of some ms is left."""
    world = World(14)
    world.leases = True
    world.boot("a")
    world.boot("b")
    world.run(20)
    world.crash("a")
    taken_at = None
    while world.now < 40 and taken_at is None:
        world.run(world.now + 0.01)
        taken_at = world.now if world.boxes["b"].believes() else None
    check_takeover(world, 20.0, taken_at, world.op_s[1] + 0.05)


def test_a_holder_that_stood_still_lets_go_when_its_lease_is_taken() -> None:
    """Its peer cannot tell it, because they are cut off from each other; the lease does."""
    world = World(15, kind="script")
    world.leases = True
    world.boot("a")
    world.boot("b")
    world.run(15)
    cut_off(world)
    world.freeze("a", 20.0)
    world.run(34)
    assert world.boxes["b"].running
    world.run(60)
    assert [box.running for box in world.boxes.values()] == [False, True]
    assert any("the other node has its lease" in line for line in world.transcript)


def test_what_was_found_up_is_looked_at_before_the_peer_was_heard() -> None:
    """A node that starts behind a cut finds the address here, and its peer takes it while it waits for initdead."""
    world = pair()
    world.run(15)
    cut_off(world)
    world.crash("a", resource_survives=True)
    world.run(19)
    world.boot("a")
    world.run(20)
    assert world.boxes["a"].believes()
    world.run(27)
    assert world.serving() == "b"
    assert [box.believes() for box in world.boxes.values()] == [False, True]
    assert world.boxes["a"].node is not None
    assert world.boxes["a"].node.negotiation.phase.value == "init"


def test_a_first_look_that_saw_nothing_is_repeated() -> None:
    """kill -9 leaves the script running; the next start cannot see it at first, and it must not run on unnoticed."""
    world = World(16, kind="script")
    world.boot("a")
    world.boot("b")
    world.run(15)
    world.crash("a", resource_survives=True)
    world.run(22)  # b has taken over; both run now
    assert [box.running for box in world.boxes.values()] == [True, True]
    script_op = world._script_op
    world._script_op = lambda box, op: (  # type: ignore[method-assign]
        Outcome(Seen.UNKNOWN, "it hangs") if box.name == "a" and world.now < 30 else script_op(box, op)
    )
    world.boot("a")
    world.run(60)
    check_end(world)


def test_a_status_that_lies_once_moves_nothing_and_a_death_is_answered() -> None:
    world = pair(kind="script")
    world.run(10)
    world.boxes["a"].running = False  # one look
    world.run(14)
    world.boxes["a"].running = True
    starts = world.boxes["a"].starts
    world.run(30)
    assert world.boxes["a"].starts == starts
    world.resource_dies("a")
    world.run(40)
    assert world.boxes["a"].running
    assert world.boxes["a"].starts == starts + 1
