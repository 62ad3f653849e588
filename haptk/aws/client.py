"""botocore, and the only place that imports it: clients with explicit time-outs, and its errors in our own words.

Everything of botocore is imported inside functions: a command that needs no API must not pay 130 ms for it.
Credentials, profiles, assumed roles and `AWS_ENDPOINT_URL` are botocore's own business, in its usual order.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from haptk import errors
from haptk.aws import imds, lean
from haptk.aws.deadline import Patience, patience
from haptk.aws.imds import Imds
from haptk.io import clock

if TYPE_CHECKING:
    from botocore.session import Session

MODELS = Path(__file__).parent / "models"
# Beyond five minutes AWS refuses a signature; a difference of more than four makes the clock the first suspect.
CLOCK_SUSPECT_S = 240.0

# The codes of EC2, STS and DynamoDB by what they mean; the throttling ones are those that botocore retries.
THROTTLES = {
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "TooManyRequestsException",
    "PriorRequestNotComplete",
    "TransactionInProgressException",
    "EC2ThrottledException",
    "SlowDown",
}
TIME_REFUSED = {"RequestExpired", "RequestTimeTooSkewed", "RequestInTheFuture"}
DENIALS = {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "Client.UnauthorizedOperation"}
BAD_CREDENTIALS = {
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "InvalidSignatureException",
    "IncompleteSignature",
    "MissingAuthenticationToken",
    "OptInRequired",
    "InvalidAccessKeyId",
}
# The calls that give credentials, which botocore makes inside another call, and their services.
CREDENTIAL_CALLS = {
    "AssumeRole": "sts",
    "AssumeRoleWithWebIdentity": "sts",
    "GetRoleCredentials": "sso",
    "CreateToken": "sso-oidc",
}
CONFLICTS = {
    "Resource.AlreadyAssociated",
    "IncorrectState",
    "ConditionalCheckFailedException",
    "ResourceInUseException",
}


class Access(NamedTuple):
    """How AWS is reached; None leaves a field to botocore (environment, profile, instance).

    `endpoint_url` is EC2's alone (an interface endpoint serves one service), `every_endpoint_url` that of all services.
    """

    region: str | None = None
    profile: str | None = None
    role_arn: str | None = None
    endpoint_url: str | None = None
    dual_stack: bool = False
    fips: bool = False
    every_endpoint_url: str | None = None


class Clients:
    """The clients of one identity, one for each (service, patience), made once and kept warm. Thread-safe."""

    def __init__(self, access: Access | None = None) -> None:
        self.access = access or Access()
        self._lock = threading.RLock()
        self._session: Session | None = None
        self._clients: dict[tuple[str, Patience], Any] = {}

    def client(self, service: str, left_s: float) -> Any:
        """The warm client that gives up within `left_s`; raises OperatorError when no region or profile fits."""
        key = (service, patience(left_s))
        with self._lock:
            if key not in self._clients:
                with lean.imports():
                    self._clients[key] = self._make(*key)
            return self._clients[key]

    def call(self, service: str, operation: str, target: str, left_s: float, **parameters: Any) -> dict[str, Any]:
        """One API call; raises the AwsError that says which `operation` on which `target` failed, and why.

        `operation` is the API's own name (`AssociateAddress`), `left_s` the seconds that may pass.
        """
        with lean.imports():
            from botocore import xform_name
            from botocore.exceptions import BotoCoreError, ClientError
            from botocore.parsers import ResponseParserError

        action = f"{service}:{operation}"
        try:
            client = self.client(service, left_s)
            answer: dict[str, Any] = getattr(client, xform_name(operation))(**parameters)
        except (BotoCoreError, ClientError, ResponseParserError) as error:
            raise self._translate(error, action, target) from error
        return answer

    def _translate(self, error: Exception, action: str, target: str) -> errors.HaptkError:
        """As `translate`; a refusal of the call that should have given the credentials is not one of the call itself."""
        asked = getattr(error, "operation_name", None) or action.partition(":")[2]
        if asked in CREDENTIAL_CALLS:
            action, target = f"{CREDENTIAL_CALLS[asked]}:{asked}", self.access.role_arn or "the role of the profile"
        return translate(error, action, target)

    def credentials_ready(self) -> None:
        """Fetch or refresh the credentials now, so that the next call need not; raises AwsNoCredentials."""
        with lean.imports():
            from botocore.exceptions import BotoCoreError, ClientError

        try:
            found = self._get_session().get_credentials()
            if found is not None:
                found.get_frozen_credentials()
        except (BotoCoreError, ClientError) as error:
            raise self._translate(error, "sts:GetCredentials", "this node") from error
        if found is None:
            raise errors.AwsNoCredentials(action="signing", target="requests of this node", why="none were found")

    def _get_session(self) -> Session:
        with self._lock:
            if self._session is None:
                with lean.imports():
                    self._session = _make_session(self.access)
            return self._session

    def _make(self, service: str, chosen: Patience) -> Any:
        from botocore.config import Config

        session = self._get_session()
        config = Config(
            connect_timeout=chosen.connect_s,
            read_timeout=chosen.read_s,
            retries={"mode": "standard", "total_max_attempts": chosen.attempts},
            # A connection that sat idle since the last poll must not be found dead by the one call that matters.
            tcp_keepalive=True,
        )
        own_url = self.access.endpoint_url if service == "ec2" else None
        return session.create_client(
            service,
            region_name=_region(self.access, session),
            endpoint_url=own_url or self.access.every_endpoint_url,
            config=config,
        )


def _make_session(access: Access) -> Session:
    session = _plain_session(access)
    if access.role_arn:
        _assume(session, _plain_session(access), access)
    return session


def _plain_session(access: Access) -> Session:
    from botocore.config import Config
    from botocore.loaders import Loader
    from botocore.session import Session

    session = Session(profile=access.profile, include_builtin_handlers=False)
    lean.register_handlers(session)
    # For the clients that botocore makes by itself, of STS: its own time-outs would be a minute, five times over.
    session.set_default_client_config(
        Config(
            connect_timeout=1.0,
            read_timeout=2.0,
            retries={"mode": "standard", "total_max_attempts": 1},
            use_dualstack_endpoint=access.dual_stack or None,
            use_fips_endpoint=access.fips or None,
        )
    )
    if (MODELS / "endpoints.json").is_file():
        # Only ours: botocore would otherwise look through the directories of its four hundred services.
        loader = Loader(extra_search_paths=[str(MODELS)], include_default_search_paths=False)
        session.register_component("data_loader", loader)
    return session


def _assume(session: Session, source: Session, access: Access) -> None:
    """Let the session sign with temporary credentials of the role, refreshed as they expire."""
    from botocore.credentials import AssumeRoleCredentialFetcher, CredentialProvider, DeferredRefreshableCredentials

    found = source.get_credentials()
    if found is None:
        raise errors.AwsNoCredentials(
            action="sts:AssumeRole", target=access.role_arn, why="none were found to assume it with"
        )

    def client(name: str, **parameters: Any) -> Any:
        parameters.setdefault("region_name", _region(access, source))
        return source.create_client(name, endpoint_url=access.every_endpoint_url, **parameters)

    fetcher = AssumeRoleCredentialFetcher(
        client_creator=client,
        source_credentials=found,
        role_arn=str(access.role_arn),
        extra_args={"RoleSessionName": f"haptk-{os.uname().nodename[:40]}"},
    )

    class Assumed(CredentialProvider):  # type: ignore[misc, unused-ignore]  # with and without botocore-stubs
        METHOD = "haptk-assume-role"

        def load(self) -> Any:
            return DeferredRefreshableCredentials(method=self.METHOD, refresh_using=fetcher.fetch_credentials)

    session.get_component("credential_provider").providers.insert(0, Assumed())


def _region(access: Access, session: Session) -> str:
    from botocore.exceptions import BotoCoreError

    try:
        found = access.region or os.environ.get("AWS_REGION") or session.get_config_variable("region")
    except BotoCoreError as error:
        raise errors.OperatorError(what=str(error)) from error
    return str(found) if found else _region_of_instance()


def _region_of_instance() -> str:
    return _metadata(lambda client: client.region(), "no AWS region: set AWS_REGION or --region")


def this_instance() -> str:
    """The instance id of this node, by its metadata; raises OperatorError."""
    return _metadata(lambda client: client.instance_id(), "which instance is this? name it with --node i-...")


def _metadata(question: Callable[[Imds], str], otherwise: str) -> str:
    endpoint = imds.endpoint_of(os.environ)
    why = "metadata is disabled by AWS_EC2_METADATA_DISABLED"
    if endpoint:
        try:
            return question(Imds(endpoint, imds.run_dir(os.environ)))
        except imds.ImdsError as error:
            why = str(error)
    raise errors.OperatorError(what=f"{otherwise} ({why})")


def translate(error: Exception, action: str, target: str) -> errors.HaptkError:
    """Our error for one of botocore's: who must act, which action on what, and what to do about it."""
    from botocore import exceptions as boto
    from botocore.parsers import ResponseParserError

    if isinstance(error, ResponseParserError):
        return errors.AwsError(action=action, target=target, why=_no_aws(error))
    if isinstance(error, boto.ClientError):
        return _of_answer(error.response, action, target)
    if isinstance(
        error,
        boto.NoRegionError
        | boto.ProfileNotFound
        | boto.ParamValidationError
        | boto.InvalidRegionError
        | boto.InvalidConfigError,
    ):
        return errors.OperatorError(what=f"{action} on {target}: {_one_line(error)}")
    credential_errors = (
        boto.NoCredentialsError,
        boto.PartialCredentialsError,
        boto.CredentialRetrievalError,
        boto.TokenRetrievalError,
        boto.SSOError,
    )
    if isinstance(error, credential_errors):
        why = f"{_one_line(error)} (an instance role, AWS_PROFILE or AWS_ACCESS_KEY_ID gives them)"
        return errors.AwsNoCredentials(action=action, target=target, why=why)
    endpoint = getattr(error, "kwargs", {}).get("endpoint_url", "the AWS API")
    if isinstance(error, boto.HTTPClientError | boto.ConnectionError):
        return errors.AwsUnreachable(action=action, target=target, endpoint=endpoint, why=_short(error))
    return errors.AwsError(action=action, target=target, why=_one_line(error))


def _of_answer(response: Mapping[str, Any], action: str, target: str) -> errors.AwsError:
    code = str(response.get("Error", {}).get("Code", ""))
    said = " ".join(str(response.get("Error", {}).get("Message", "")).split())
    why = f"{code}: {said}" if said else code
    skew_s = _skew_s(response)
    if code in THROTTLES:
        return errors.AwsThrottled(action=action, target=target, why=why)
    if code == "RequestExpired" and skew_s is not None and abs(skew_s) <= CLOCK_SUSPECT_S:
        # EC2's one code for two causes: a signature of long ago, and a session token past its end.
        right = "the clock is right, so the temporary credentials are past their end: renew them"
        return errors.AwsNoCredentials(action=action, target=target, why=f"{why} ({right})")
    if code in TIME_REFUSED or "Signature expired" in said or "Signature not yet current" in said:
        return errors.AwsClock(action=action, target=target, why=_with_skew(why, skew_s))
    if code in BAD_CREDENTIALS:
        if skew_s is not None and abs(skew_s) > CLOCK_SUSPECT_S:
            return errors.AwsClock(action=action, target=target, why=_with_skew(why, skew_s))
        hint = "wrong or expired" if skew_s is not None else "expired, wrong, or the clock is off?"
        return errors.AwsNoCredentials(action=action, target=target, why=f"{why} ({hint})")
    if code in DENIALS:
        return errors.AwsDenied(action=action, target=target, why=_denied(action, said))
    if code.endswith(("NotFound", ".Unknown", "NotFoundException")) or code.startswith(
        ("InvalidAssociationID", "NoSuch")
    ):
        return errors.AwsNotFound(action=action, target=target, why=why)
    if "multiple interfaces" in said:
        return errors.AwsError(action=action, target=target, why=f"{why} (name one with --interface eni-...)")
    if code in CONFLICTS:
        return errors.AwsConflict(action=action, target=target, why=why)
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if status >= 500:
        return errors.AwsError(
            action=action, target=target, why=f"AWS failed with HTTP {status} ({why or 'no reason given'})"
        )
    return errors.AwsError(action=action, target=target, why=why or f"HTTP {status}")


def _skew_s(response: Mapping[str, Any]) -> float | None:
    """How far this machine's clock is ahead of AWS's, in seconds, by the Date header of the answer."""
    date = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return clock.wall() - parsedate_to_datetime(date).timestamp() if date else None
    except ValueError:
        return None


def _with_skew(why: str, skew_s: float | None) -> str:
    if skew_s is None or abs(skew_s) < 2:
        return why
    return f"{why}; this clock is {abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} AWS's"


def _denied(action: str, said: str) -> str:
    # The encoded authorization message of EC2 is kilobytes long and no person can read it.
    said = said.partition("Encoded authorization failure message")[0].strip()
    return f"allow {action} in the policy of this role or user{f' ({said})' if said else ''}"


def _no_aws(error: Exception) -> str:
    said = _one_line(error)
    return f"what answered there is not AWS (a proxy, or a wrong endpoint?): {said[:160]}{'...' if len(said) > 160 else ''}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _short(error: Exception) -> str:
    name = type(error).__name__
    plain = {
        "ConnectTimeoutError": "the connection was not accepted in time",
        "ReadTimeoutError": "it accepted the request and sent no answer in time",
        "EndpointConnectionError": "the connection failed",
        "ConnectionClosedError": "it closed the connection without an answer",
        "ProxyConnectionError": "the proxy does not connect",
        "SSLError": "TLS failed",
    }
    text = plain.get(name, _one_line(error))
    return text if name != "SSLError" else f"{text}: {_one_line(error)}"
