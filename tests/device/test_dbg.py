import pytest_twisted
from tests.device.test_http_tls import *
from tests.device.test_http_tls import Issued, ROOT, OTHER, pin, LOCAL, OK, asker
from gatewayd.device import connection as c
@pytest_twisted.ensureDeferred
async def test_x(asker):
    real=c.is_for
    def f(cert,host):
        print("CERT",cert, cert and cert.get_subject(), cert.get_issuer(), real(cert,host))
        from service_identity.pyopenssl import extract_patterns
        print(extract_patterns(cert))
        return real(cert,host)
    c.is_for=f
    issued=Issued(LOCAL, by=ROOT)
    there = asker.raw(OK, issued.options())
    pin(asker, there.url, OTHER.pem+ROOT.pem)
    try: print(await asker.ask(there))
    finally: c.is_for=real
    assert 0
