"""The training makes way for the serving, and has its share. By a clock that the test moves."""

from __future__ import annotations

import threading
import time

import pytest

from graftax.tuning.device_time import DeviceTime


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def serve(device: DeviceTime, clock: Clock, seconds: float, busy: bool = True) -> None:
    """A round of the serving that takes so long."""

    def advance() -> bool:
        clock.now += seconds
        return busy

    assert device.round(advance) is busy


def train(device: DeviceTime, clock: Clock, seconds: float) -> None:
    """A step of the training that takes so long, of which it is known that it may begin."""
    assert device.may_train()
    with device.step():
        clock.now += seconds


def test_who_has_no_step_breathes_for_nothing(clock: Clock) -> None:
    """As while programs are compiled: nobody's step is ended, and none begun that nobody would end."""
    device = DeviceTime(0.5, clock)
    device.breathe()
    with device.step():
        other = threading.Thread(target=device.breathe)
        other.start()
        other.join()
        assert device._trains == threading.get_ident()
        begun = threading.Thread(target=train, args=(device, clock, 0.1), daemon=True)
        begun.start()
        begun.join(0.05)
        assert begun.is_alive()  # it waits for the step under way
    begun.join(60)
    assert not begun.is_alive()


def test_its_share_is_what_the_training_has_had_lately(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    device = DeviceTime(0.25, clock)
    assert device.share() == 0.25  # nobody knows yet
    for _ in range(100):
        train(device, clock, 0.5)
    assert device.share() == 1.0

    def wait(seconds: float) -> None:
        clock.now += 0.2
        serve(device, clock, 0.01)

    monkeypatch.setattr(device._changed, "wait", wait)
    for _ in range(200):  # rounds are short, and there is one whenever the training waits, and before each step
        serve(device, clock, 0.01)
        with device.step():
            clock.now += 0.5
    assert device.share() == pytest.approx(0.25, abs=0.02)


def test_idle_serving_leaves_all_of_the_time(clock: Clock) -> None:
    device = DeviceTime(0.1, clock)
    serve(device, clock, 0.001, busy=False)
    for _ in range(100):
        train(device, clock, 0.2)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_busy_serving_gives_away_the_share(clock: Clock, share: float) -> None:
    """Rounds of 50 ms that never end, steps of 70 ms: of two minutes the training has its share."""
    device, trained, begun = DeviceTime(share, clock), 0.0, clock.now
    while clock.now < begun + 120:
        serve(device, clock, 0.05)
        while device.may_train():
            train(device, clock, 0.07)
            trained += 0.07
    assert trained / 120 == pytest.approx(share, abs=0.02)


def test_who_had_the_gaps_has_had_its_share(clock: Clock) -> None:
    """Half a second of requests, half a second of none: the training has had its half in the gaps, and delays nobody."""
    device, delayed = DeviceTime(0.5, clock), 0
    for _ in range(20):
        for _ in range(10):
            serve(device, clock, 0.05)
            delayed += device.may_train()
        serve(device, clock, 0.0, busy=False)
        for _ in range(10):
            train(device, clock, 0.05)
    assert delayed == 0


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_a_server_in_use_keeps_its_share_of_the_gaps(clock: Clock, share: float) -> None:
    """A round of 10 ms ten times a second: though the device has nothing else to do, requests meet steps in that share."""
    device, trained, begun = DeviceTime(share, clock), 0.0, clock.now
    while clock.now < begun + 60:
        serve(device, clock, 0.01)
        serve(device, clock, 0.0, busy=False)
        next_round = clock.now + 0.09
        while clock.now < next_round:
            if device.may_train():
                train(device, clock, 0.03)
                trained += 0.03
            else:
                clock.now += 0.01
    assert trained / 60 == pytest.approx(share, abs=0.03)
    clock.now += 1.0
    train(device, clock, 10.0)  # nobody asks any more
    train(device, clock, 10.0)


def test_what_was_long_ago_is_forgotten(clock: Clock) -> None:
    """After an hour of training alone it has its share again within seconds."""
    device = DeviceTime(0.5, clock)
    for _ in range(3600):
        train(device, clock, 1.0)
    begun = clock.now
    while not device.may_train() or clock.now == begun:
        serve(device, clock, 0.05)
    assert clock.now - begun < 5.0


def test_a_server_that_stalls_holds_up_nobody(clock: Clock) -> None:
    """It was busy, and no round comes: its engine has failed, or waits for a hub."""
    device = DeviceTime(0.5, clock)
    train(device, clock, 1.0)
    serve(device, clock, 0.05)
    assert not device.may_train()
    clock.now += 0.3
    assert device.may_train()


def test_a_round_waits_for_nothing_and_a_step_breathes() -> None:
    """By the machine's clock: a round that comes within a step is done beside it; the step's next part waits for its end."""
    device, order, goes_on = DeviceTime(0.5), list[str](), threading.Event()

    def advance() -> bool:
        order.append("a round begins")
        goes_on.wait()
        order.append("the round ends")
        return False

    serving = threading.Thread(target=device.round, args=(advance,))
    with device.step():
        order.append("first part")
        serving.start()
        while order[-1] != "a round begins":
            time.sleep(0.001)
        threading.Timer(0.05, goes_on.set).start()
        device.breathe()
        order.append("second part")
    serving.join()
    assert order == ["first part", "a round begins", "the round ends", "second part"]


def test_one_step_at_a_time() -> None:
    """Jobs and loops are trained in two threads."""
    device, under_way, most = DeviceTime(), 0, 0

    def work() -> None:
        nonlocal under_way, most
        for _ in range(200):
            with device.step():
                under_way += 1
                most = max(most, under_way)
                time.sleep(0)
                under_way -= 1

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
