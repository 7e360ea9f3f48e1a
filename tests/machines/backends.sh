#!/bin/bash
# The servers of docs/backends.md, set up with its lines, behind sniproxy under a real systemd:
# Debian's packages with their own units, in tests/machines/container.sh's container. A client with
# another address than the rest of the machine asks each through the proxy. Servers that are not
# installed are left out.
#
# usage: GUEST=tests/machines/backends.sh tests/machines/container.sh STAGE    as root, see make
# check-backends
set -eu -o pipefail
# shellcheck source=tests/machines/container.sh
. "${0%/*}/container.sh"

client=127.0.0.77
live=/etc/letsencrypt/live

# --- common to all ---

certificate() { # NAME
	mkdir -p "$live/$1"
	chmod 700 "$live"
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
		-subj "/CN=$1" -addext "subjectAltName=DNS:$1" \
		-keyout "$live/$1/privkey.pem" -out "$live/$1/fullchain.pem" 2>/dev/null
	cp "$live/$1/fullchain.pem" "/tmp/$1.pem"
}

# The page of a host. Its certificate must be the host's own.
get() { # NAME [CURL OPTION...]
	curl -sS --max-time 20 --cacert "/tmp/$1.pem" --resolve "$1:443:127.0.0.1" \
		--interface "$client" "https://$1/" "${@:2}"
}

# Waits until the page has TEXT.
shows() { # TEXT NAME [CURL OPTION...]
	wait_for 20 page_has "$@" 2>/dev/null || {
		get "${@:2}" 2>&1 | sed 's/^/#   /'
		return 1
	}
}

page_has() { # TEXT NAME [CURL OPTION...]
	get "${@:2}" | grep -F -e "$1" >/dev/null
}

protocol() { # NAME [CURL OPTION...]
	get "$1" -o /dev/null -w '%{http_version}' "${@:2}"
}

have() { # PROGRAM WHAT
	command -v "$1" >/dev/null && return
	number=$((number + 1))
	echo "ok $number - $2 # SKIP $1 is not installed"
	return 1
}

# A backend of backends, without TLS, that prints which address asks it.
start_plain_server() {
	cat >/tmp/plain.py <<-'END'
		import http.server
		class Site(http.server.BaseHTTPRequestHandler):
		    def do_GET(self):
		        client = self.headers.get("X-Forwarded-For", "nobody")
		        self.send_response(200)
		        self.end_headers()
		        self.wfile.write(f"hello, {client}\n".encode())
		http.server.HTTPServer(("127.0.0.1", 8000), Site).serve_forever()
	END
	systemd-run --quiet --unit=plain-server python3 /tmp/plain.py
	wait_for 20 curl -sf http://127.0.0.1:8000/
}

# --- servers with a Unix socket ---

try_nginx() {
	have nginx nginx || return 0
	certificate blog.example
	readme '## nginx' 1
	put /etc/nginx/conf.d/blog.conf '## nginx' 2
	mkdir -p /var/www/html
	echo 'hello from nginx' >/var/www/html/index.html
	start_again nginx.service
	ok "nginx" shows 'hello from nginx' blog.example
	ok "over HTTP/2" is 2 protocol blog.example
	ok "and HTTP/1.1" is 1.1 protocol blog.example --http1.1
	ok "sees its client" wait_for 5 grep -q "^$client .*\"GET / " /var/log/nginx/access.log
	ok "and lets nobody else at its socket" is_refused_for nobody blog.example
	ok "past the proxy it does not answer" not answers_past_the_proxy blog.example
	rm "$hosts/blog.example/send-proxy-v1"
	ok "nor without a PROXY header" complains SSL_ERROR_SYSCALL blog.example
	touch "$hosts/blog.example/send-proxy-v1"
}

start_again() { # UNIT
	systemctl unmask --quiet "$1"
	systemctl restart "$1" || {
		systemctl status --no-pager "$1" | sed 's/^/#   /'
	}
}

is_refused_for() { # USER NAME
	not runuser -u "$1" -- openssl s_client -unix "$hosts/$2/tls-socket" </dev/null >/dev/null 2>&1
}

not() { # COMMAND...
	! "$@"
}

try_haproxy() {
	have haproxy HAProxy || return 0
	certificate shop.example
	readme '## HAProxy' 1
	/try/tests/scripts/readme.sh '## HAProxy' 2 >>/etc/haproxy/haproxy.cfg
	start_again haproxy.service
	ok "HAProxy, whose server sees the client" shows "hello, $client" shop.example
	ok "over HTTP/2" is 2 protocol shop.example
	ok "the socket is for the proxy alone" is_refused_for nobody shop.example
	ok "the key is not for others" is 600 stat -c %a /etc/haproxy/shop.example.pem
	systemctl reload haproxy.service
	ok "it can be reloaded" shows "hello, $client" shop.example
}

try_caddy() {
	have caddy Caddy || return 0
	certificate wiki.example
	readme '## Caddy' 1
	put /etc/caddy/Caddyfile '## Caddy' 2
	edit caddy.service '## Caddy' 3
	start_again caddy.service
	ok "Caddy" shows 'Caddy' wiki.example
	ok "over HTTP/2" is 2 protocol wiki.example
	ok "does not offer HTTP/3" not offers_http3 wiki.example
	ok "nor takes a port" is '' sh -c 'ss -Hltnp | grep caddy | grep -v 127.0.0.1:2019 || :'
	ok "the socket is for the proxy alone" is_refused_for nobody wiki.example
	start_again caddy.service
	ok "it can be restarted" shows 'Caddy' wiki.example
	ok "past the proxy it answers too" answers_past_the_proxy wiki.example
	ok "with a PROXY header it closes" closes_at_header wiki.example
}

# complains ERROR NAME: curl fails with ERROR.
complains() {
	{ get "$2" 2>&1 || :; } | grep -F "$1" >/dev/null
}

# The server does not expect a PROXY header.
closes_at_header() { # NAME
	local ended=0
	touch "$hosts/$1/send-proxy-v1"
	complains SSL_ERROR_SYSCALL "$1" || ended=1
	rm "$hosts/$1/send-proxy-v1"
	return "$ended"
}

answers_past_the_proxy() { # NAME
	readme '## The PROXY header' 1 "s/blog\.example/$1/g" 2>&1 | grep "subject=CN = $1" >/dev/null
}

offers_http3() { # NAME
	get "$1" -o /dev/null -D - | grep -i '^alt-svc:'
}

try_stunnel() {
	have stunnel4 stunnel || return 0
	certificate talk.example
	readme '## stunnel' 1
	put /etc/stunnel/talk.conf '## stunnel' 2
	edit stunnel@talk.service '## stunnel' 3
	systemctl enable --quiet --now stunnel@talk
	ok "stunnel, before a server without TLS" shows 'hello, nobody' talk.example
	ok "the socket is for the proxy alone" is_refused_for nobody talk.example
	ok "at a PROXY header it closes" closes_at_header talk.example
	systemctl kill --signal=KILL stunnel@talk
	wait_for 10 is failed property stunnel@talk ActiveState
	start_again stunnel@talk.service
	ok "it starts although its old socket was left" shows 'hello, nobody' talk.example
}

# --- servers on TCP ---

try_apache() {
	have apache2 Apache || return 0
	certificate www.example
	put /etc/apache2/ports.conf '## Apache' 1
	put /etc/apache2/sites-available/www.conf '## Apache' 2
	mkdir -p /var/www/html
	echo 'hello from Apache' >/var/www/html/index.html
	readme '## Apache' 3
	edit sniproxy-tcp@www.example.service '## Apache' 4
	readme '## Apache' 5
	ok "Apache" shows 'hello from Apache' www.example
	ok "over HTTP/2" is 2 protocol www.example
	ok "sees its client" wait_for 5 grep -rq " $client .*\"GET / " /var/log/apache2
	ok "is on no other port" is 127.0.0.1:8443 \
		sh -c "ss -Hltnp | grep apache2 | awk '{ print \$4 }'"
}

try_dovecot() {
	have dovecot Dovecot || return 0
	certificate mail.example
	put /etc/dovecot/local.conf '## Dovecot' 1
	edit sniproxy-tcp@mail.example.service '## Dovecot' 2
	systemctl unmask --quiet dovecot
	# Debian's package makes it only if ssl-cert was installed before.
	cp "$live/mail.example/fullchain.pem" /etc/dovecot/private/dovecot.pem
	cp "$live/mail.example/privkey.pem" /etc/dovecot/private/dovecot.key
	readme '## Dovecot' 3
	useradd --create-home --password "$(openssl passwd -6 secret)" postmaster
	ok "Dovecot" has_mailbox postmaster:secret
	ok "sees its client" wait_for 5 dovecot_saw "rip=$client"
	ok "and refuses who is not its user" not has_mailbox postmaster:wrong
}

has_mailbox() { # USER:PASSWORD
	curl -sS --max-time 30 --cacert /tmp/mail.example.pem --resolve mail.example:993:127.0.0.1 \
		--interface "$client" --user "$1" imaps://mail.example/ | grep 'INBOX'
}

dovecot_saw() { # TEXT
	journalctl --sync
	journalctl -q -o cat -u dovecot |
		grep -F 'Login: user=<postmaster>' | grep -F "$1"
}

# --- programs with systemd's socket ---

# Prints the ExecStart= of the text below a heading.
exec_start() { # HEADING
	sed -n "/^### $1\$/,/^###\? /s/^\`\(ExecStart=[^\`]*\)\`.*/\1/p" /try/docs/backends.md
}

start_app() { # [EXEC-START]
	put /etc/systemd/system/app.service '## A program of your own' 2 "${1:+s|^ExecStart=.*|$1|}"
	systemctl daemon-reload
	systemctl restart app.service
}

try_app() {
	certificate app.example
	put /etc/systemd/system/app.socket '## A program of your own' 1
	put /etc/systemd/system/app.service '## A program of your own' 2
	mkdir -p /opt/app
	readme '## A program of your own' 3
	readme '## A program of your own' 4
	try_node
	try_python
	try_go
	try_uvicorn
}

app_serves() { # WHAT TEXT
	ok "$1" shows "$2" app.example
	ok "  as an ordinary user" not is root ps -o user= -p "$(property app.service MainPID)"
	stop_early
	ok "  whom a client that breaks off does not disturb" shows "$2" app.example
}

# If several users may write, the socket on which systemd listens must be in a directory of root's,
# until the program listens itself.
app_listens() { # COMMAND...; what is to be so then
	readme '## Which user may listen' 2
	systemctl restart app.socket
	get app.example >/dev/null # which starts the service
	ok "  where several may write, $1" "${@:2}"
	chmod 755 "$hosts"
}

is_not_roots() {
	wait_for 20 complains 'unrecognized name' app.example &&
		in_journal ' app\.example: tls-socket: user [0-9]+ listens in the host directory of user 0$'
}

# A user who owns the directory.
try_user() {
	readme '## A program of your own' 5
	readme '## Which user may listen' 2
	get app.example >/dev/null # which starts the service
	ok "where several may write, the directory's user serves" shows 'hello from uvicorn' app.example
	ok "and it is that user" is "$(id -u app)" stat -c %u "/proc/$(property app.service MainPID)"
	chmod 755 "$hosts"
}

# Clients that close before, in and after the handshake.
stop_early() {
	local bytes
	for bytes in '' 'not TLS'; do
		printf '%s' "$bytes" | timeout 5 socat -t 1 - "UNIX:$hosts/app.example/tls-socket" \
			>/dev/null 2>&1 || :
	done
	openssl s_client -connect 127.0.0.1:443 -servername app.example </dev/null >/dev/null 2>&1 || :
}

try_node() {
	have node Node.js || return 0
	put /opt/app/app.js '### Node.js' 1
	start_app
	app_serves "Node.js sees its client" "hello, $client"
	app_listens "its user is not the directory's" is_not_roots
	ok "  the socket is for the proxy alone" is_refused_for nobody app.example
}

try_python() {
	have python3 Python || return 0
	put /opt/app/app.py '### Python' 1
	start_app "$(exec_start Python)"
	app_serves "Python sees its client" "hello, $client"
	app_listens "too" shows "hello, $client" app.example
}

try_go() {
	have go Go || return 0
	put /opt/app/app.go '### Go' 1
	ok "the Go program compiles" \
		env -C /opt/app HOME=/root GO111MODULE=off GOPATH=/usr/share/gocode go build -o app app.go
	start_app "ExecStart=/opt/app/app"
	app_serves "Go sees its client" "hello, $client"
	app_listens "too" shows "hello, $client" app.example
	ok "  over HTTP/2" is 2 protocol app.example
}

try_uvicorn() {
	have uvicorn uvicorn || return 0
	rm "$hosts/app.example/send-proxy-v1"
	cat >/opt/app/app.py <<-'END'
		async def app(scope, receive, send):
		    if scope["type"] != "http":
		        return
		    await send({"type": "http.response.start", "status": 200, "headers": []})
		    text = f"hello from uvicorn, {scope['client']}\n"
		    await send({"type": "http.response.body", "body": text.encode()})
	END
	edit app.service '### uvicorn' 1
	systemctl restart app.service
	app_serves uvicorn 'hello from uvicorn, None'
	ok "  at a PROXY header it closes" closes_at_header app.example
	app_listens "its user is not the directory's" is_not_roots
	try_user
}

# --- a container ---

# An image with nginx and what it needs.
make_image() {
	local root=/tmp/image file
	mkdir -p "$root"/{etc/box,var/www/html,var/log/nginx,var/lib/nginx,run/sniproxy,tmp}
	for file in "$(command -v nginx)" $(ldd "$(command -v nginx)" | grep -o '/[^ ]*'); do
		install -D "$file" "$root$file"
	done
	echo 'root:x:0:0::/:/bin/false' >"$root/etc/passwd"
	echo 'root:x:0:' >"$root/etc/group"
	cp "$live/box.example"/*.pem "$root/etc/box"
	echo 'hello from a container' >"$root/var/www/html/index.html"
	{
		echo 'daemon off; user root; error_log stderr; pid /tmp/pid; events {} http { access_log off;'
		/try/tests/scripts/readme.sh '## A container' 2
		echo '}'
	} >"$root/etc/box/nginx.conf"
	tar -C "$root" -c . | podman import --quiet \
		--change "ENTRYPOINT [\"$(command -v nginx)\", \"-e\", \"stderr\", \"-c\", \"/etc/box/nginx.conf\"]" - localhost/box
}

try_container() {
	have podman "a container" || return 0
	have nginx "a container" || return 0
	# Podman's storage cannot be on an overlay.
	mount -t tmpfs tmpfs /var/lib/containers
	# Podman has no cgroups of its own in another container.
	printf '%s\n' '[containers]' 'cgroups = "disabled"' >/etc/containers/containers.conf
	certificate box.example
	make_image
	readme '## A container' 1
	ok "a container of Podman's" shows 'hello from a container' box.example
	# shellcheck disable=SC2016 # for the other shell
	ok "has users of its own" is 100000 \
		sh -c 'ps -o uid= -p "$(podman inspect --format "{{.State.Pid}}" box)" | tr -d " "'
	ok "the socket is for the proxy alone" is_refused_for nobody box.example
	podman restart box >/dev/null
	ok "it can be restarted" shows 'hello from a container' box.example
}

# --- certificates ---

# A certificate authority for tests, for names that lead here.
start_authority() {
	certificate localhost
	printf '127.0.0.1 %s\n' localhost blog.example other.example >/etc/hosts
	systemd-run --quiet --unit=authority /try/tests/scripts/authority.sh \
		$live/localhost/{fullchain,privkey}.pem
	wait_for 20 curl -sf --cacert /tmp/localhost.pem https://localhost:15000/roots/0
	export LEGO_CA_CERTIFICATES=/tmp/localhost.pem
}

# The document's lines, with that authority.
try_lego() {
	local before server='--server https://localhost:14000/dir'
	have lego lego || return 0
	have pebble lego || return 0
	have nginx lego || return 0
	start_authority
	edit sniproxy-tcp@.acme.service '### lego' 1
	readme '### lego' 2 '/^apt /d'
	readme '### lego' 3 "s|^lego|& $server|" 2>&1 | sed 's/^/# /'
	sed -i "s|$live/blog.example/fullchain.pem|/etc/lego/certificates/blog.example.crt|
		s|$live/blog.example/privkey.pem|/etc/lego/certificates/blog.example.key|" \
		/etc/nginx/conf.d/blog.conf
	systemctl reload nginx
	curl -sS --cacert /tmp/localhost.pem https://localhost:15000/roots/0 >/tmp/blog.example.pem
	ok "lego gets nginx a certificate" shows 'hello from' blog.example
	ok "the socket for challenges is for the proxy alone" is_refused_for nobody .acme

	put /etc/systemd/system/lego@.service '### lego' 4 "s|/usr/bin/lego|& $server|
		s|^Type=.*|&\nEnvironment=LEGO_CA_CERTIFICATES=$LEGO_CA_CERTIFICATES|"
	put /etc/systemd/system/lego@.timer '### lego' 5
	readme '### lego' 6
	before=$(serial)
	ok "it is not renewed a year before it expires" systemctl start lego@blog.example.service
	ok "  and nginx keeps it" is "$before" serial
	sed -i 's/ renew / renew --days 9999 /' /etc/systemd/system/lego@.service
	systemctl daemon-reload
	readme '## Which user may listen' 2
	ok "it is renewed, where several users may write, too" systemctl start lego@blog.example.service
	ok "  and nginx reloaded" wait_for 5 not is "$before" serial
	chmod 755 "$hosts"

	readme '### lego' 7
	/try/tests/scripts/readme.sh '### lego' 3 |
		sed "/^lego/!d; s|blog\.example|other.example|g; s|^lego|& $server|" >/tmp/other
	ok "and one for a name without a directory" bash -eu /tmp/other
}

# The serial number of the certificate that nginx has.
serial() {
	openssl s_client -connect 127.0.0.1:443 -servername blog.example </dev/null 2>/dev/null |
		openssl x509 -noout -serial
}

# --- all of them ---

are_well() {
	readme '## Certificates' 1 's/ --quiet//' >/tmp/checked 2>&1 || {
		sed 's/^/#   /' /tmp/checked
		return 1
	}
}

# The servers that were tried and stay.
try_all() {
	ok "sniproxy-check finds them well, with their certificates" are_well
	readme '## Which user may listen' 2
	ok "and where several users may write, too" are_well
	local host
	for host in "$hosts"/*.example; do
		host=${host##*/}
		[ "$host" = mail.example ] || ok "  $host is served there" wait_for 20 get "$host" -o /dev/null
	done
	[ ! -e "$hosts/mail.example" ] || ok "  mail.example, too" has_mailbox postmaster:secret
}

inside() {
	set -o errtrace
	trap 'echo "# line $LINENO: $BASH_COMMAND"' ERR
	install_stage /try/stage
	readme '## Quick start on a server with systemd' 1 '/^make /d; /^mkdir /d'
	start_plain_server
	try_nginx
	try_haproxy
	try_caddy
	try_stunnel
	try_apache
	try_dovecot
	try_app
	try_container
	try_lego
	try_all
	! command -v podman >/dev/null || podman rm --force --time 0 box >/dev/null
	finish
}

inside
