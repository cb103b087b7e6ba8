"""Web pages for clients that don't know a stage or have no login screen of their own.

Client-Server API, "Fallback" of the user-interactive authentication and "Login Fallback". The pages hold no script from
elsewhere, may not be framed, and name the session only.
"""

from html import escape
from urllib.parse import parse_qs

from config.schema import Config
from federation.rules.errors import MatrixError
from homeserver.accounts.interactive_auth import DUMMY, PASSWORD, REGISTRATION_TOKEN, TERMS, Session
from homeserver.accounts.user_interactive import InteractiveAuth
from homeserver.web.call import Answer, Call
from homeserver.web.router import Auth, Route

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline';"
    " form-action 'self'; connect-src 'self'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

FORMS = {
    DUMMY: "<p>Please confirm that you want to go on.</p>",
    REGISTRATION_TOKEN: "<p>Registration needs a token.</p>"
    '<label>Token <input name="token" autocomplete="off"></label>',
    PASSWORD: "<p>Please confirm with the password of your account.</p>"
    '<label>Password <input name="password" type="password" autocomplete="current-password"></label>',
}

DONE = """<p>Thank you. You can go back to your application now.</p>
<script>if (window.onAuthDone) { window.onAuthDone(); }
else if (window.opener && window.opener.postMessage) { window.opener.postMessage("authDone", "*"); }</script>"""

LOGIN = """<form id="f"><label>User <input name="user" autocomplete="username"></label>
<label>Password <input name="password" type="password" autocomplete="current-password"></label>
<button>Log in</button><p id="m" role="alert"></p></form>
<script>
document.getElementById("f").onsubmit = async function (event) {
  event.preventDefault();
  var query = new URLSearchParams(location.search), form = event.target;
  var body = {type: "m.login.password", identifier: {type: "m.id.user", user: form.user.value},
              password: form.password.value};
  if (query.get("device_id")) body.device_id = query.get("device_id");
  if (query.get("initial_device_display_name"))
    body.initial_device_display_name = query.get("initial_device_display_name");
  var answer = await (await fetch("/_matrix/client/v3/login", {method: "POST", body: JSON.stringify(body)})).json();
  if (answer.access_token) {
    document.getElementById("m").textContent = "You are logged in.";
    if (window.matrixLogin && window.matrixLogin.onLogin) window.matrixLogin.onLogin(answer);
    else if (window.onLogin) window.onLogin(answer);
  } else document.getElementById("m").textContent = answer.error || "That did not work.";
};
</script>"""


class AuthFallbackEndpoints:
    """`/auth/{type}/fallback/web` for each stage that this server offers, and the login page."""

    def __init__(self, interactive_auth: InteractiveAuth, config: Config) -> None:
        self._interactive_auth = interactive_auth
        self._terms = config.terms

    def routes(self) -> list[Route]:
        """The routes."""
        path = "/_matrix/client/v3/auth/{authType}/fallback/web"
        return [
            Route("GET", path, self.show, Auth.NONE),
            Route("POST", path, self.submit, Auth.NONE, limit="login.address", body_limit=16_384),
            Route("GET", "/_matrix/static/client/login/", self.login, Auth.NONE),
        ]

    def show(self, call: Call) -> Answer:
        """The form of a stage."""
        session = self._session(call, call.query("session"))
        return self._form(call.params["authType"], session, "")

    async def submit(self, call: Call) -> Answer:
        """Check what the form brought; the stage is completed when it is right."""
        stage = call.params["authType"]
        try:
            fields = {k: v[0] for k, v in parse_qs(call.body.decode(), max_num_fields=10).items()}
        except ValueError:
            raise MatrixError(400, "M_UNKNOWN", "The form is not valid") from None
        session = self._session(call, fields.get("session"))
        try:
            await self._interactive_auth.submit(session, stage, fields)
        except MatrixError as error:
            if error.status not in (400, 401):
                raise
            return self._form(stage, session, error.error)
        return _page(200, DONE)

    def login(self, call: Call) -> Answer:
        """The login page."""
        return _page(200, LOGIN)

    def _session(self, call: Call, session_id: str | None) -> Session:
        stage = call.params["authType"]
        session = self._interactive_auth.sessions.find(session_id) if session_id else None
        if session is None or session.used or not session.offers(stage):
            raise MatrixError(400, "M_UNKNOWN", "Unknown or expired authentication session")
        return session

    def _form(self, stage: str, session: Session, problem: str) -> Answer:
        fields = FORMS.get(stage)
        if stage == TERMS and self._terms is not None:
            url, name = escape(self._terms.url, quote=True), escape(self._terms.name)
            fields = f'<p>Please read and accept: <a href="{url}" rel="noopener">{name}</a></p>'
        if fields is None:
            raise MatrixError(404, "M_UNRECOGNIZED", "There is no page for this stage")
        warning = f'<p role="alert">{escape(problem)}</p>' if problem else ""
        hidden = f'<input type="hidden" name="session" value="{escape(session.session_id, quote=True)}">'
        form = f'<form method="post">{warning}{hidden}{fields}<button>Go on</button></form>'
        return _page(401 if problem else 200, form)


def _page(status: int, content: str) -> Answer:
    html = (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<title>Authentication</title><style>body{font:1rem sans-serif;max-width:24rem;margin:3rem auto;padding:0 1rem}"
        "label,button{display:block;margin:1rem 0}</style>" + content + "</html>"
    )
    return Answer(status, html.encode(), "text/html; charset=utf-8", HEADERS)
