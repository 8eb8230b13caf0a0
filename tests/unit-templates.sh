# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# templates: where they are found, and those made out of the table


test_templates() {
	begin templates
	lc create --list-templates
	status 0
	noerr
	cp "$out" "$T/list.txt"
	run sort -c "$T/list.txt"
	status 0
	for f in almalinux alpine archlinux centos-stream debian fedora opensuse oraclelinux rocky ubuntu ubuntu-lts default \
		almalinux-9 alpine-3.22 alpine-iso centos-stream-10 debian-11 debian-12 debian-13 fedora-44 opensuse-leap-15 \
		oraclelinux-8 rocky-10 ubuntu-20.04 ubuntu-22.04 ubuntu-24.04 ubuntu-26.04 experimental/debian-sid experimental/ubuntu-next; do
		grep -qxF "$f" "$T/list.txt" || bad "no $f"
	done
	fails grep -q ^_ "$T/list.txt"
	lc start --list-templates
	holds cmp "$out" "$T/list.txt"
	ok 'a name for each release and for the newest of each family, sorted'

	lc info
	for f in debian-12 _images/debian-12 _default/mounts; do outhas "\"name\": \"$f\""; done
	ok 'info lists all, parts of others included'

	# all of them in two runs
	set --
	while read -r f; do set -- "$@" "template:$f" "template:_images/${f#experimental/}"; done <<-END
		$(grep -vx -e default "$T/list.txt" | while read -r f; do [ -e "templates/$f.yaml" ] || echo "$f"; done)
	END
	lc validate "$@"
	status 0
	same "$(grep -c ': OK"$' "$err")" $#
	errlacks Non-strict
	ok "the $# made out of the table validate"
	set --
	for f in templates/*.yaml templates/[!_]*/*.yaml; do
		[ ! -e "$f" ] || { f=${f#templates/} && set -- "$@" "template:${f%.yaml}"; }
	done
	lc validate "$@"
	status 0
	errlacks Non-strict
	ok "the $# that are files validate"

	lc validate --fill template:debian-12
	status 0
	grep -A3 'location: https://cloud.debian.org/images/cloud/bookworm/20260712-2537/debian-12-genericcloud-arm64' "$out" >"$T/entry.txt" || bad 'no arm64 entry'
	filehas "$T/entry.txt" 'arch: aarch64'
	filehas "$T/entry.txt" 'digest: sha512:52eb678130e85a9bf9f3cf4f7181e060fa60a5db45373717474c5ff9305645c5e6cab8b05ca042bcfa7921d2ca29cf9fd2e815f75abe2d168557ad7207af127b'
	filehas "$T/entry.txt" 'variant: genericcloud'
	ok 'an entry has its address in the spelling of its architecture, digest and variant'

	for f in docker:docker.io,uidmap,slirp4netns,fuse-overlayfs k3s:curl; do
		lc validate --fill "template:${f%%:*}"
		status 0
		sed -n '/^images:/,/^[^ -]*:/s/^- location: //p' "$out" | sed -e '/^mmdebstrap:/!s/.*/web/' | uniq >"$T/places.txt"
		same "$(cat "$T/places.txt")" "web
mmdebstrap:bookworm,${f#*:}"
	done
	run env LIMA_TEMPLATES_PATH="$PWD/templates" "$LIMACTL" validate template:docker
	status 0
	lc template copy template:docker
	outhas 'base: template:_images/docker'
	ok 'an engine stands on the images of a release, and on a built one with its packages last'

	for f in apptainer buildkit docker docker-rootful k3s k8s podman podman-rootful; do
		sed -e '/^base:/d' -e '/^containerd:/d' "templates/$f.yaml" >"$T/in"
		printf 'images: [location: /etc/profile]\ndisk: 1MiB\ncontainerd: {user: false}\n' >>"$T/in"
		input=$T/in
		lc create --name "$f" -
		lc list --format '{{.Status}} {{.Message}}' "$f"
		outre "^Stopped .*(runs|guest)"
		outhas "$f"
	done
	lc delete apptainer buildkit docker docker-rootful k3s k8s podman podman-rootful
	status 0
	ok 'an engine has a message that can be told'

	mkdir -p "$LIMA_HOME/_templates/sub"
	printf 'images:\n- location: /etc/profile\ndisk: 1MiB\n' >"$LIMA_HOME/_templates/mine.yaml"
	cp "$LIMA_HOME/_templates/mine.yaml" "$LIMA_HOME/_templates/debian-12.yaml"
	cp "$LIMA_HOME/_templates/mine.yaml" "$LIMA_HOME/_templates/.hidden.yaml"
	cp "$LIMA_HOME/_templates/mine.yaml" "$LIMA_HOME/_templates/_part.yaml"
	cp "$LIMA_HOME/_templates/mine.yaml" "$LIMA_HOME/_templates/sub/one.yaml"
	ln -s . "$LIMA_HOME/_templates/loop"
	lc create template:mine
	status 0
	holds cmp "$LIMA_HOME/_templates/mine.yaml" "$LIMA_HOME/mine/lima.yaml"
	lc create template:sub/one
	status 0
	lc create template:debian-12
	status 0
	holds cmp "$LIMA_HOME/_templates/mine.yaml" "$LIMA_HOME/debian-12/lima.yaml"
	lc delete mine one debian-12
	ok '_templates: found, with a directory, and before what is inside'
	lc create --list-templates
	same "$(grep -cxF -e mine -e sub/one "$out")" 2
	same "$(grep -cxF debian-12 "$out")" 1
	fails grep -qE 'hidden|_part|loop' "$out"
	lc info
	outhas "\"location\": \"$LIMA_HOME/_templates/debian-12.yaml\""
	ok 'and listed, once'

	mkdir -p "$HOME/a" "$HOME/b" "$HOME/p/bin" "$HOME/p/share/lima/templates" "$HOME/link"
	cp "$LIMA_HOME/_templates/mine.yaml" "$HOME/b/other.yaml"
	run env LIMA_TEMPLATES_PATH="$HOME/a:$HOME/none:$HOME/b" "$LIMACTL" create template:other
	status 0
	lc delete other
	run env LIMA_TEMPLATES_PATH="$HOME/a:$HOME/b" "$LIMACTL" create --list-templates
	outis other
	for f in debian-12 mine default; do
		run env LIMA_TEMPLATES_PATH="$HOME/a:$HOME/b" "$LIMACTL" create "template:$f"
		fatal "template \`$f.yaml\` not found"
	done
	ok 'LIMA_TEMPLATES_PATH stands for all places'
	cp "$LIMACTL" "$HOME/p/bin/limactl"
	cp "$LIMA_HOME/_templates/mine.yaml" "$HOME/p/share/lima/templates/shared.yaml"
	mkdir -p "$HOME/q/bin" "$HOME/q/share/lima/templates"
	cp "$LIMA_HOME/_templates/mine.yaml" "$HOME/q/share/lima/templates/linked.yaml"
	ln -s "$HOME/p/bin/limactl" "$HOME/q/bin/limactl"
	for f in shared linked; do
		run "$HOME/q/bin/limactl" create "template:$f"
		status 0
		run env PATH="$HOME/q/bin:$PATH" limactl validate "template:$f"
		status 0
	done
	lc delete shared linked
	run "$HOME/p/bin/limactl" create template:linked
	fatal 'template `linked.yaml` not found'
	ok 'PREFIX/share/lima/templates of the program as called and as it is'

	lc validate template:nope
	fatal 'template `nope.yaml` not found'
	lc validate template:nope.sh
	fatal 'template `nope.sh` not found'
	lc validate template:../x
	fatal 'template name `../x` must not contain `..`'
	lc validate template:experimental/riscv64
	errhas --arch=riscv64
	fatal 'template `experimental/riscv64.yaml` not found'
	lc validate template://debian-12
	status 0
	logged warning 'Template locator `template://debian-12` should be written `template:debian-12` since Lima v2.0'
	ok 'what is not found, and what is written in the old way'
	rm -rf "$LIMA_HOME/_templates"
	finish
}
