# shellcheck shell=bash disable=SC2154 # hosts is container.sh's
# Debian's nginx.service as a backend, for tests/machines/container.sh: stale sockets, sockets in
# /run, and the move from an nginx that has port 443.

# What nginx.service runs.
configure() { # SERVER [HTTP-LINES]
	cat >/etc/nginx/nginx.conf <<-END
		pid /run/nginx.pid;
		error_log /tmp/nginx-service.log;
		events {}
		http {
			access_log off;
			default_type text/plain;
			ssl_certificate /tmp/certificate;
			ssl_certificate_key /tmp/key;
			${2-}
			${1%\}}
				return 200 "hello from \$host to \$remote_addr";
			}
		}
	END
}

serves() { # NAME
	is "hello from $1 to unix:" ask "$1" 127.0.0.1
}

# Like a power failure: without a signal that nginx can handle.
kill_nginx() {
	systemctl kill --signal=KILL nginx.service
	wait_for 10 nginx_is_down
}

nginx_is_down() {
	[[ $(property nginx.service ActiveState) =~ ^(inactive|failed)$ ]]
}

starts_nginx() {
	systemctl reset-failed nginx.service 2>/dev/null || : # the unit may not be loaded
	systemctl start nginx.service 2>/dev/null
}

nginx_said() { # TEXT
	journalctl --sync
	journalctl -q -o cat -u nginx.service | grep -F "$1" >/dev/null
}

# The blocks are for blog.example, which start_backends uses.
try_left_behind() {
	local host='s/blog\.example/left.example/g'
	systemctl unmask --quiet nginx.service
	systemctl stop nginx.service
	manual sniproxy.5 '.Sh EXAMPLES' 1 "$host"
	configure "$(/try/tests/scripts/manual.sh sniproxy.5 '.Sh EXAMPLES' 2 | sed "$host")"
	starts_nginx
	ok "nginx.service with sniproxy(5)'s lines" serves left.example
	ok "under another name too" serves www.left.example

	kill_nginx
	ok "when nginx was killed, its socket stays" test -S "$hosts/left.example/tls-socket"
	ok "and nginx does not start" not starts_nginx
	ok "it says why" nginx_said 'bind() to unix:/srv/sniproxy/left.example/tls-socket failed (98: Address already in use)'
	systemctl reset-failed nginx.service
	readme '## A socket that was left behind' 1 "$host"
	ok "once the socket is removed, it does" serves left.example

	edit nginx.service '## A socket that was left behind' 2 "$host"
	kill_nginx
	ok "with the line in its unit it starts at once" starts_nginx
	ok "and serves" serves left.example
	ok "it can be reloaded" systemctl reload nginx.service
	ok "and be restarted" systemctl restart nginx.service
	ok "and serves after that" serves left.example
	configure "$(readme_server "$host")"
	systemctl reload nginx.service
	ok "with README.md's lines likewise" serves left.example
	edit nginx.service '## Quick start on a server with systemd' 3 "$host"
	kill_nginx
	ok "and it starts again" starts_nginx
	ok "and serves again" serves left.example
	readme '## Keeping others away' 1 "$host"
	ok "and where its directory is closed to others" serves left.example
	ok "who cannot reach the socket" is_refused alice 'ls left.example'

	configure "server { listen unix:$hosts/left.example/tls-socket ssl proxy_protocol; }" \
		"$(/try/tests/scripts/readme.sh '# Moving from nginx on port 443' 4)"
	readme '## Switching it on' 1 "$host"
	ok "with the PROXY header it sees clients" wait_for 10 \
		is "hello from left.example to 127.0.0.1" ask left.example 127.0.0.1
	systemctl stop nginx.service
	undo_edit nginx.service
	rm -r "$hosts"/{,www.}left.example
}

# The request of a certificate authority.
try_challenge() {
	mkdir -p /var/www/html/.well-known/acme-challenge
	echo token >/var/www/html/.well-known/acme-challenge/challenge
	configure 'server { listen unix:/run/unused; }' "$(/try/tests/scripts/readme.sh '### HTTP-01' 1)"
	systemctl start nginx.service
	ok "nginx answers a challenge on port 80" is token \
		curl -sS -H 'Host: blog.example' http://127.0.0.1/.well-known/acme-challenge/challenge
	ok "over IPv6 too" is token \
		curl -sS -H 'Host: blog.example' 'http://[::1]/.well-known/acme-challenge/challenge'
	ok "and leads to HTTPS elsewhere" is https://blog.example/page \
		curl -sS -o /dev/null -w '%{redirect_url}' -H 'Host: blog.example' http://127.0.0.1/page
	systemctl stop nginx.service
}

readme_server() { # SED-SCRIPT
	/try/tests/scripts/readme.sh '## Quick start on a server with systemd' 2 | sed "$1; s/ \.\.\. / /"
}

try_run() {
	local host='s/blog\.example/run.example/g'
	put /etc/tmpfiles.d/backends.conf '## Sockets in /run' 1
	edit nginx.service '## Sockets in /run' 3
	readme '## Sockets in /run' 4 "$host"
	configure "server { listen unix:/run/backends/nginx/run.example ssl; }"
	systemd-tmpfiles --create
	systemctl restart nginx.service
	ok "a symlink out of the hosts directory leads nowhere" is "alert number 112" alert run.example
	edit sniproxy.service '## Sockets in /run' 2
	readme '## Sockets in /run' 5
	ok "but sniproxy can be let see where it leads" serves run.example
	systemctl restart nginx.service
	ok "and sees what nginx makes anew" serves run.example
	systemctl stop nginx.service
	ok "while nginx is down there is nothing" is "alert number 112" alert run.example
	systemctl start nginx.service
	ok "and then there is again" serves run.example
	kill_nginx
	ok "after it was killed nginx starts" starts_nginx
	ok "and serves again" serves run.example
	systemctl stop nginx.service
	rmdir /run/backends
	systemctl restart sniproxy.service
	ok "where the folder is missing, other hosts are served" answers blog.example
	readme '## Sockets in /run' 5
	ok "until it is there again" serves run.example
	undo_edit sniproxy.service

	# The reason for this way.
	drop_in BindReadOnlyPaths=-/run/backends/nginx
	systemctl restart sniproxy.service
	ok "the backend's own folder can be seen" serves run.example
	systemctl restart nginx.service
	ok "until the backend restarts" is "alert number 112" alert run.example
	no_drop_in
	systemctl restart sniproxy.service
	printf '%s\n' '[Service]' RuntimeDirectoryPreserve=yes \
		>/etc/systemd/system/nginx.service.d/preserve.conf
	systemctl daemon-reload
	systemctl restart nginx.service
	kill_nginx
	ok "with RuntimeDirectoryPreserve= sockets stay in the way" not starts_nginx
	undo_edit nginx.service
	rm -r /run/backends/nginx /etc/tmpfiles.d/backends.conf "$hosts/run.example"
}

# docs/from-nginx.md, from top to bottom.
try_move() {
	local tcp unix http
	local host='s/blog\.example/moved.example/g; s/shop\.example/moved-too.example/g'
	tcp='listen 443 ssl; listen [::]:443 ssl;'
	unix=$(/try/tests/scripts/readme.sh '# Moving from nginx on port 443' 3 | sed "$host")
	http=$(/try/tests/scripts/readme.sh '# Moving from nginx on port 443' 4)
	systemctl disable --quiet --now sniproxy.socket
	systemctl reset-failed nginx.service
	configure "server { $tcp }"
	systemctl start nginx.service
	ok "nginx has the port" is "hello from moved.example to 127.0.0.1" \
		ask moved.example 127.0.0.1
	readme '# Moving from nginx on port 443' 1 '/^make /d'
	readme '# Moving from nginx on port 443' 2 "$host"
	configure "server { $tcp $unix }" "$http"
	readme '# Moving from nginx on port 443' 5
	edit sniproxy.socket '# Moving from nginx on port 443' 6
	ok "sniproxy is tried on another port" is "hello from moved.example to 127.0.0.1" \
		readme '# Moving from nginx on port 443' 7 "$host; s/^curl/& -ksS/"
	readme '# Moving from nginx on port 443' 8
	ok "and stopped" is_refused_at 127.0.0.1:8443
	configure "server { $unix }" "$http"
	readme '# Moving from nginx on port 443' 9
	ok "sniproxy has the port" is active property sniproxy.socket ActiveState
	ok "nginx is behind it, and sees clients" is "hello from moved.example to 127.0.0.1" \
		ask moved.example 127.0.0.1
	ok "under each name" is "hello from www.moved.example to ::1" ask www.moved.example '[::1]'
	ok "of all that it had" is "hello from moved-too.example to ::1" ask moved-too.example '[::1]'
	configure "server { $tcp $unix }" "$http"
	readme '# Moving from nginx on port 443' 10
	ok "nginx has it back" is "hello from nobody.example to 127.0.0.1" wait_for_nobody
	systemctl stop nginx.service
	rm -r "$hosts"/{,www.}moved.example "$hosts/moved-too.example"
	systemctl enable --quiet --now sniproxy.socket
	answers blog.example
}

# A name without a directory, which nginx still serves; it may listen a moment later.
wait_for_nobody() {
	wait_for 10 ask nobody.example 127.0.0.1 2>/dev/null
	ask nobody.example 127.0.0.1
}
