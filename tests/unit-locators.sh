# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# locators: what create, start and validate take for a template

# web PATH TEXT: what the fake curl answers for https://PATH
web() {
	mkdir -p "$HOME/web/${1%/*}"
	printf '%s' "$2" >"$HOME/web/$1"
}

test_locators() {
	begin locators
	buildfakes
	yaml='images: [{location: /etc/profile}]
disk: 1MiB
'
	mkdir "$HOME/bin"
	# a curl with a web of its own; its words are kept
	cat >"$HOME/bin/curl" <<-'END'
		#!/bin/sh
		while [ $# -gt 1 ]; do
			[ "$1" != -K ] || cat "$2" >>"$HOME/auth"
			shift
		done
		echo "$1" >>"$HOME/asked"
		f=$HOME/web/${1#https://}
		[ ! -e "$HOME/broken" ] || exit 6
		if [ -f "$f" ]; then cat "$f"; printf '\n200'; else printf 'none\n404'; fi
	END
	chmod +x "$HOME/bin/curl"
	PATH=$HOME/bin:$PATH
	raw=raw.githubusercontent.com

	# images: the architecture and the name out of the address
	arch=$(uname -m)
	deb=amd64
	[ "$arch" = x86_64 ] || deb=arm64
	while read -r f name; do
		mkdir -p "$HOME/img"
		cp /etc/profile "$HOME/img/$f"
		lc create "$HOME/img/$f"
		[ "$rc" = 0 ] || bad "create $f: status $rc"
		[ -e "$LIMA_HOME/$name/disk" ] || bad "$f is not named $name but $(ls "$LIMA_HOME")"
		errlacks 'cannot determine'
		if [ -e "$LIMA_HOME/$name" ]; then
			filehas "$LIMA_HOME/$name/lima.yaml" "location: \"$HOME/img/$f\""
			lc delete "$name"
		fi
	done <<-END
		ubuntu-24.04-server-cloudimg-$deb.img ubuntu-24.04-$deb
		Rocky-9-GenericCloud-Base.latest.$arch.qcow2 rocky-9
		debian-12-genericcloud-$deb-20260712-2537.qcow2 debian-12-$deb
		nocloud_alpine-3.22.4-$arch-uefi-cloudinit-r0.raw alpine-3.22.4-r0
		AlmaLinux-8-GenericCloud-8.10-20260518.$arch.qcow2 almalinux-8.10
		Arch-Linux-$arch-cloudimg-20260715.556894.qcow2 archlinux
		Fedora-Cloud-Base-Generic-44-1.7.$arch.qcow2 fedora-44-1.7
		openSUSE-Leap-15.6-Minimal-VM.$arch-Cloud.qcow2 opensuse-leap-15.6
		CentOS-Stream-GenericCloud-9-20260720.0.$arch.qcow2 centos-9
	END
	ok 'an image: its instance has a short name'
	while read -r f a; do
		lc validate --fill "https://h/$f"
		status 0
		outre "^arch: $a\$"
		outhas "  arch: $a"
		outhas "- location: https://h/$f"
		errlacks 'cannot determine'
	done <<-END
		a-amd64.img x86_64
		a-arm64.img.xz aarch64
		a.aarch64.qcow2.zstd aarch64
		armhf/a.raw.gz armv7l
		a-ppc64el.iso.bz2 ppc64le
		a-ppc64le.iso ppc64le
		riscv64-a.img riscv64
		a.s390x.img s390x
		x86_64/a-arm64.img x86_64
	END
	ok 'an image: the architecture out of the address'
	lc validate --fill https://h/notamd64.img
	status 0
	logged warning "cannot determine image arch from URL \`https://h/notamd64.img\`; assuming \`$arch\`"
	lc validate https://h/FreeBSD-14-amd64.img
	fatalhas 'field `os` must be one of'
	lc validate "https://h/-amd64.img"
	fatalhas 'is invalid'
	mkdir "$HOME/cd"
	(cd "$HOME/cd" && cp /etc/profile "rel-$deb.img" && "$LIMACTL" create "./rel-$deb.img" >"$out" 2>"$err") || bad 'create of a relative path fails'
	filehas "$LIMA_HOME/rel-$deb/lima.yaml" "location: \"$HOME/cd/rel-$deb.img\""
	lc delete "rel-$deb"
	ok 'an image without an architecture, of another system, without a name, by a relative path'

	# github:
	web api.github.com/repos/org/org '{"id": 1, "default_branch": "main", "x": null}'
	web api.github.com/repos/org/repo '{"default_branch": "trunk"}'
	web $raw/org/org/main/.lima.yaml "$yaml"
	web $raw/org/repo/trunk/.lima.yaml "$yaml"
	web $raw/org/repo/trunk/dir/.lima.yaml "$yaml"
	web $raw/org/repo/trunk/dir/vm.yaml "$yaml"
	web $raw/org/repo/v1/dir/vm.yml "$yaml"
	web $raw/org/repo/feature/x/vm.yaml "$yaml"
	web $raw/org/repo/trunk/script.sh 'echo'
	while read -r loc url; do
		rm -f "$HOME/asked"
		lc --debug validate "$loc"
		status 0
		logged warning 'The github: scheme is still EXPERIMENTAL'
		logged debug "Locator \`$loc\` replaced with \`https://$raw/$url\`"
		logged info "\`$loc\`: OK"
	done <<-END
		github:org/repo/dir/vm org/repo/trunk/dir/vm.yaml
		github:org/repo/dir/vm.yml@v1 org/repo/v1/dir/vm.yml
		github:org/repo/vm@feature/x org/repo/feature/x/vm.yaml
	END
	for f in org:org org/:org org//:org org/repo:repo org/repo/dir/:dir org/repo/dir/@trunk:dir; do
		lc --debug create "github:${f%:*}"
		status 0
		errhas /.lima.yaml
		holds test -e "$LIMA_HOME/${f##*:}"
		lc delete "${f##*:}"
	done
	lc create --name=x github:org
	status 0
	holds test -e "$LIMA_HOME/x"
	lc delete x
	ok 'github: repository, path and branch, and what they are when absent'
	rm -f "$HOME/auth"
	GH_TOKEN=ghp_1 GITHUB_TOKEN=no lc validate github:org/repo/dir/vm
	filehas "$HOME/auth" 'header = "Authorization: token ghp_1"'
	rm -f "$HOME/auth"
	GITHUB_TOKEN=ghp_2 lc validate github:org/repo/dir/vm
	filehas "$HOME/auth" 'token ghp_2'
	filelacks "$HOME/asked" ghp_
	GH_TOKEN='a
header = "x: y"' lc validate github:org/repo/dir/vm
	fatalhas GH_TOKEN
	ok 'github: the token, not on a command line'
	web $raw/org/repo/trunk/link.yaml 'dir/vm.yaml'
	web $raw/org/repo/trunk/dir/up.yaml '../vm2.yaml'
	web $raw/org/repo/trunk/vm2.yaml "$yaml"
	web $raw/org/repo/trunk/out.yaml '../../x.yaml'
	web $raw/org/repo/trunk/abs.yaml '/etc/passwd'
	lc --debug validate github:org/repo/link
	status 0
	errhas "https://$raw/org/repo/trunk/dir/vm.yaml"
	lc --debug validate github:org/repo/dir/up
	status 0
	errhas "https://$raw/org/repo/trunk/vm2.yaml"
	for f in out:../../x.yaml abs:/etc/passwd; do
		lc validate "github:org/repo/${f%%:*}"
		fatal "symlink target \`${f#*:}\` in \`https://$raw/org/repo/trunk/${f%%:*}.yaml\` escapes the repository"
	done
	ok 'github: symbolic links, and none that climb out'
	web $raw/org/org/main/go.yaml 'github:org/repo/dir/vm
and more'
	web $raw/org/org/main/other.yaml 'github:evil/repo/dir/vm'
	web $raw/org/org/main/at.yaml 'github:org/repo/dir/vm@v1'
	web $raw/org/org/main/loop.yaml 'github:org//loop'
	web $raw/org/repo/v1/dir/vm.yaml "$yaml"
	lc --debug validate github:org//go
	status 0
	errhas "https://$raw/org/repo/trunk/dir/vm.yaml"
	lc --debug validate github:org//go@v1
	status 0
	logged debug 'Locator `github:org//go@v1` replaced with `github:org/repo/dir/vm@v1`'
	errhas "https://$raw/org/repo/v1/dir/vm.yaml"
	lc validate github:org//other
	fatal "redirect \`github:evil/repo/dir/vm\` is not a \`github:org\` URL (from \`https://$raw/org/org/main/other.yaml\`)"
	lc validate github:org//at
	fatal "redirect \`github:org/repo/dir/vm@v1\` must not include a branch/tag/sha (from \`https://$raw/org/org/main/at.yaml\`)"
	lc validate github:org//loop
	fatal 'custom locator `github:org//loop` has a redirect loop'
	ok 'github: redirects of an organisation, its own only, and no loop'
	lc validate github:
	fatal 'github: URL must contain at least an ORG, got `github:`'
	lc validate github:org/repo/none
	fatal "file \`https://$raw/org/repo/trunk/none.yaml\` not found or inaccessible: status 404"
	lc validate github:org/nope/none
	fatalhas 'default branch of `github:org/nope`'
	for f in github:org/repo/../../x github:org/../x github:org/repo/x@../y; do
		lc validate "$f"
		fatal "locator \`$f\` escapes the repository"
	done
	: >"$HOME/broken"
	lc validate github:org/repo/dir/vm
	rm "$HOME/broken"
	fatalhas 'default branch'
	errhas "the host's name does not resolve"
	ok 'github: what fails says so in one line'

	# plugins
	cat >"$HOME/bin/limactl-url-x-1" <<-'END'
		#!/bin/sh
		case $1 in
		loop) echo x-1:loop2 ;;
		loop2) echo x-1:loop ;;
		same) echo x-1:same ;;
		fail) echo 'no such thing' >&2; exit 3 ;;
		die) kill -9 $$ ;;
		*) printf '\n  %s \n' "$1" ;;
		esac
	END
	chmod +x "$HOME/bin/limactl-url-x-1"
	printf '%s' "$yaml" >"$HOME/my.yaml"
	lc create "x-1:$HOME/my.yaml"
	status 0
	holds cmp "$HOME/my.yaml" "$LIMA_HOME/my/lima.yaml"
	lc delete my
	lc validate x-1:template:debian-12
	status 0
	ok 'a plugin makes a locator of its own scheme another one'
	lc validate x-1:loop
	fatal 'custom locator `x-1:loop` has a redirect loop'
	lc validate x-1:fail
	fatal "command \`$HOME/bin/limactl-url-x-1 fail\` failed: no such thing"
	lc validate x-1:die
	fatalhas 'was killed by signal 9'
	lc validate x-1:same
	fatal 'open x-1:same: no such file or directory'
	lc validate nonesuch:x
	fatal 'open nonesuch:x: no such file or directory'
	ok 'plugins that go in circles, fail, or are not there'
	mkdir -p "$HOME/p/bin" "$HOME/p/libexec/lima"
	cp "$LIMACTL" "$HOME/p/bin/limactl"
	mv "$HOME/bin/limactl-url-x-1" "$HOME/p/libexec/lima/"
	run "$HOME/p/bin/limactl" validate "x-1:$HOME/my.yaml"
	status 0
	mv "$HOME/p/libexec/lima/limactl-url-x-1" "$HOME/p/bin/"
	run "$HOME/p/bin/limactl" validate "x-1:$HOME/my.yaml"
	status 0
	ok 'a plugin beside limactl and in its libexec'

	# http
	PATH=$realpath
	rm -f "$fakes/port"
	"$fakes/httpd" >/dev/null 2>&1 &
	server=$!
	await 10 test -s "$fakes/port"
	url=http://127.0.0.1:$(cat "$fakes/port")
	printf '%s' "$yaml" >"$fakes/www/web.yaml"
	head -c 5000000 /dev/zero | tr '\0' '#' >"$fakes/www/big.yaml"
	: >"$fakes/www/empty.yaml"
	printf 'cpus: 1\n\0\n' >"$fakes/www/nul.yaml"
	lc create "$url/web.yaml"
	status 0
	holds cmp "$fakes/www/web.yaml" "$LIMA_HOME/web/lima.yaml"
	lc delete web
	lc validate "$url/none.yaml"
	fatal "cannot read the template \`$url/none.yaml\`: status 404"
	lc validate "$url/big.yaml"
	fatal "cannot read the template \`$url/big.yaml\`"
	errhas 'larger than 4MiB'
	lc validate "$url/empty.yaml"
	fatal "don't know how to interpret \`$url/empty.yaml\` as a template locator"
	lc validate "$url/nul.yaml"
	fatal "\`$url/nul.yaml\` has a NUL byte: it is no YAML text"
	lc validate http://127.0.0.1:1/x.yaml
	fatal 'cannot read the template `http://127.0.0.1:1/x.yaml`'
	errhas 'cannot connect'
	shape
	ok 'http: the text; a 404, too much, nothing, no server'
	if have wget; then
		nopath curl
		lc validate "$url/web.yaml"
		status 0
		lc validate "$url/none.yaml"
		fatal "cannot read the template \`$url/none.yaml\`: status 404"
		PATH=$realpath
		ok 'http by wget'
	else
		skip 'http by wget' 'wget is not installed'
	fi
	kill "$server"
	wait "$server" 2>/dev/null || :
	cp "$HOME/my.yaml" "$HOME/--.yaml"
	lc create "$HOME/--.yaml"
	fatalhas 'filename `--` is invalid'
	lc create --name=x "$HOME/--.yaml"
	status 0
	lc delete x
	ok '--name serves where the file has no good name'
	lc validate "file://$HOME/my.yaml"
	status 0
	lc validate file://my.yaml
	fatal 'filename `.` is invalid: file URL `file://my.yaml` is not an absolute path'
	lc validate file://a/my.yaml
	fatal 'file URL `file://a/my.yaml` is not an absolute path'
	head -c 5000000 /dev/zero | tr '\0' '#' >"$HOME/big.yaml"
	lc validate "$HOME/big.yaml"
	fatalhas 'file too large'
	ok 'file: an absolute path, of at most 4 MiB'
	finish
}
