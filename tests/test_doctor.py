"""The doctor on all ranks."""

from distsep.cli import doctor
from distsep.cli.session import Session
from distsep.cli.voice import Voice


def test_the_doctor_is_content_on_all_ranks(comm, capsys):
    session = Session(comm, Voice(speaks=comm.rank == 0))
    doctor.examine(session)
    assert session.code == 0, capsys.readouterr().out
