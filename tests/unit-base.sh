# shellcheck shell=sh disable=SC2154,SC2034,SC2016,SC2317
# base templates: what is embedded, in which order, and what is refused

# made FILE: the lima.yaml of an instance created from a template
made() {
	rm -rf "${LIMA_HOME:?}/x"
	lc create --name=x "$1"
	status 0
	made=$LIMA_HOME/x/lima.yaml
}
# madeis TEXT: the lima.yaml just made is TEXT
madeis() {
	printf '%s\n' "$1" | diff - "$made" >"$T/diff" 2>&1 || bad "lima.yaml differs: $(head -n 20 "$T/diff")"
}
# refused FILE TEXT: create fails with TEXT and makes nothing
refused() {
	lc create --name=y "$1"
	status 1
	errhas "$2"
	[ ! -e "$LIMA_HOME/y" ] || bad 'an instance was left'
}

test_base() {
	begin base
	buildfakes
	d=$T/base.d
	mkdir -p "$d/sub" "$LIMA_HOME/_config"
	cat >"$d/os.yaml" <<-'END'
		# the base's own comment
		images:
		- location: /etc/profile


		disk: 1MiB  # small
		memory: 1GiB
	END

	printf 'base: os.yaml\n' >"$d/only.yaml"
	made "$d/only.yaml"
	holds cmp "$d/os.yaml" "$made"
	ok 'a template that is only a base becomes it, byte for byte'

	printf '# main\nbase: os.yaml\n' >"$d/only.yaml"
	made "$d/only.yaml"
	same "$(cat "$made")" "# main
$(cat "$d/os.yaml")"
	ok 'below its own comments'

	cat >"$d/t.yaml" <<-'END'
		# head
		base: os.yaml
		cpus: 3  # three
		# no memory of the base
		memory:
	END
	made "$d/t.yaml"
	madeis '# head
cpus: 3  # three
# no memory of the base
memory:
images:
- location: /etc/profile
disk: 1MiB'
	ok 'a base gives what the template does not name; null names it; comments stay'

	# lists: order, nesting, maps at all depths, versions
	cat >"$d/a.yaml" <<-'END'
		base: {url: sub/c.yaml}
		dns: [1.1.1.1]
		mountTypesUnsupported: [9p, virtiofs]
		ssh: {forwardAgent: true}
		env: {WHO: a, A: a}
		minimumLimaVersion: 2.0.0
		provision:
		- script: "#!/bin/sh a"
		- script: "#!/bin/sh a2"
		portForwards:
		- guestPort: 1
	END
	cat >"$d/sub/c.yaml" <<-'END'
		base: ./d.yaml
		env: {WHO: c, C: c}
		cpus: 7
		provision:
		- file: c.sh
		probes:
		- file: {url: probe.sh}
		portForwards:
		- guestPort: 2
	END
	printf 'env: {D: d}\ncpus: 8\nssh:\n' >"$d/sub/d.yaml"
	printf '#!/bin/sh\n\techo tab\n' >"$d/sub/c.sh"
	printf '#!/bin/sh\ntrue\n' >"$d/sub/probe.sh"
	cat >"$d/t.yaml" <<-END
		base:
		- a.yaml
		- url: $d/os.yaml
		dns: []
		hostResolver: {enabled: false}
		mountTypesUnsupported: [9p]
		ssh: {localPort: 2222}
		env: {WHO: t}
		minimumLimaVersion: 1.0.0
		provision:
		- script: "#!/bin/sh t"  # mine
		portForwards:
		- guestPort: 3
	END
	made "$d/t.yaml"
	madeis 'dns: [1.1.1.1]
hostResolver: {enabled: false}
mountTypesUnsupported: [9p, virtiofs]
ssh: {localPort: 2222, forwardAgent: true}
env: {WHO: t, A: a, C: c, D: d}
minimumLimaVersion: 2.0.0
provision:
- script: |
    #!/bin/sh
    	echo tab
- script: "#!/bin/sh a"
- script: "#!/bin/sh a2"
- script: "#!/bin/sh t"  # mine
portForwards:
- guestPort: 3
- guestPort: 1
- guestPort: 2
cpus: 7
probes:
- script: |
    #!/bin/sh
    true
images:
- location: /etc/profile
disk: 1MiB
memory: 1GiB'
	ok 'bases of bases, lists, maps, versions, script files'

	# entries with one key, and *
	cat >"$d/m.yaml" <<-'END'
		mounts:
		- location: "*"
		  9p: {cache: none}
		- location: /srv
		  writable: true
		additionalDisks:
		- name: data
		  format: false
		networks:
		- lima: other
		  interface: net0
		  metric: 50
	END
	cat >"$d/t.yaml" <<-'END'
		base: [m.yaml, os.yaml]
		mounts:
		- location: /srv
		- location: /mnt
		  9p: {cache: mmap}
		additionalDisks: [data]
		networks:
		- lima: user-v2
		  interface: net0
	END
	lc disk create data --size 1MiB
	made "$d/t.yaml"
	madeis 'mounts:
- location: /srv
  9p: {cache: none}
  writable: true
- location: /mnt
  9p: {cache: mmap}
additionalDisks: [{name: data, format: false}]
networks:
- lima: user-v2
  interface: net0
  metric: 50
images:
- location: /etc/profile
disk: 1MiB
memory: 1GiB'
	ok 'entries with one key are one; * gives to those before it'

	# places
	mkdir "$LIMA_HOME/_templates" "$LIMA_HOME/_templates/in"
	printf 'base: x/y.yaml\ncpus: 1\n' >"$LIMA_HOME/_templates/in/t.yaml"
	mkdir "$LIMA_HOME/_templates/in/x"
	cp "$d/os.yaml" "$LIMA_HOME/_templates/in/x/y.yaml"
	made template:in/t
	filehas "$made" 'memory: 1GiB'
	cp "$d/os.yaml" "$HOME/os.yaml"
	printf 'base: ~/os.yaml\ncpus: 1\n' >"$d/t.yaml"
	made "$d/t.yaml"
	filehas "$made" 'memory: 1GiB'
	rm -rf "${LIMA_HOME:?}/x"
	(cd "$d" && printf 'base: os.yaml\ncpus: 1\n' | "$LIMACTL" create --name=x - >/dev/null 2>&1) || bad 'standard input with a base'
	filehas "$made" 'memory: 1GiB'
	ok 'beside a template: of a store, in the home, beside standard input'

	printf 'base: [template:_images/debian-12, template:_default/mounts]\ncpus: 2\n' >"$d/t.yaml"
	lc validate --fill "$d/t.yaml"
	status 0
	outhas 'digest: sha512:52eb678130e85a9bf9f3cf4f7181e060fa60a5db45373717474c5ff9305645c5e6cab8b05ca042bcfa7921d2ca29cf9fd2e815f75abe2d168557ad7207af127b'
	outhas "- location: $HOME"
	ok 'template:_images/debian-12 and template:_default/mounts as bases'

	printf 'cpus: 5\nmemory: 3GiB\n' >"$LIMA_HOME/_config/base.yaml"
	printf 'base: os.yaml\ncpus: 2\n' >"$d/t.yaml"
	made "$d/t.yaml"
	madeis 'cpus: 2
memory: 3GiB
images:
- location: /etc/profile
disk: 1MiB'
	lc validate "$d/t.yaml"
	status 0
	noout
	lc validate --fill "$d/t.yaml"
	outhas 'memory: 3GiB'
	cp "$d/os.yaml" "$d/plain.yaml"
	made "$d/plain.yaml"
	filehas "$made" 'cpus: 5'
	rm "$LIMA_HOME/_config/base.yaml"
	made "$d/plain.yaml"
	holds cmp "$d/plain.yaml" "$made"
	ok '_config/base.yaml is the first base of all'

	# refused
	printf 'base: l2.yaml\n' >"$d/l1.yaml"
	printf 'base: sub/l3.yaml\n' >"$d/l2.yaml"
	printf 'base: %s/l1.yaml\n' "$d" >"$d/sub/l3.yaml"
	refused "$d/l1.yaml" "base template loop detected: template \`$d/l1.yaml\` already included (\`$d/l1.yaml\` > \`$d/l2.yaml\` > \`$d/sub/l3.yaml\` > \`$d/l1.yaml\`)"
	printf 'base: [os.yaml, ./os.yaml]\n' >"$d/t.yaml"
	refused "$d/t.yaml" "base template loop detected: template \`$d/os.yaml\` already included"
	i=0
	while [ $i -lt 40 ]; do
		printf 'base: n%d.yaml\n' $((i + 1)) >"$d/n$i.yaml"
		i=$((i + 1))
	done
	cp "$d/os.yaml" "$d/n40.yaml"
	refused "$d/n0.yaml" 'base templates are nested more than 32 deep'
	made "$d/n8.yaml"
	ok 'loops, and bases nested without end'
	none=$(sha256sum </dev/null | cut -d' ' -f1) sum=$(sha256sum <"$d/sub/c.sh" | cut -d' ' -f1)
	printf 'base: os.yaml\nprovision: [{file: {url: sub/c.sh, digest: "sha256:%s"}}]\n' "$sum" >"$d/t.yaml"
	made "$d/t.yaml"
	filehas "$made" 'echo tab'
	filelacks "$made" sha256
	while IFS='^' read -r text msg; do
		printf '%b' "$text" >"$d/t.yaml"
		refused "$d/t.yaml" "$msg"
	done <<-END
		base: gone.yaml^open $d/gone.yaml: no such file or directory
		base: template:gone^template \`gone.yaml\` not found
		base: ../os.yaml^relative locator path \`../os.yaml\` must not contain '..' path segments
		base: ''^locator is empty
		base: [[a]]^[1:8] field \`base\` must be a locator or a list of locators
		base: {url: os.yaml, digest: x}^base \`$d/os.yaml\` in \`$d/t.yaml\` has specified a digest; digest support is not yet implemented
		provision: [{file: gone.sh}]^open $d/gone.sh: no such file or directory
		provision: [{file: {url: sub/c.sh, digest: "sha256:$none"}}]^$d/sub/c.sh: expected digest \`sha256:$none\`, got \`sha256:$sum\`
		provision: [{file: {url: sub/c.sh, digest: "md5:0"}}]^$d/sub/c.sh: digest \`md5:0\` is invalid: unsupported digest algorithm
		base: os.yaml\nprovision: [{file: sub/c.sh, script: "#!/bin/sh"}]^field \`provision[0].file.url\` must be empty during validation
	END
	printf '[1]\n' >"$d/list.yaml"
	printf 'a: [\n' >"$d/cut.yaml"
	printf 'base: list.yaml\ncpus: 1\n' >"$d/t.yaml"
	refused "$d/t.yaml" "base template \`$d/list.yaml\` is not a map"
	printf 'base: cut.yaml\ncpus: 1\n' >"$d/t.yaml"
	refused "$d/t.yaml" "(base template \`$d/cut.yaml\`): ["
	ok 'what is wrong is named, and nothing is made'

	made "$d/os.yaml"
	printf 'base: os.yaml\n' >>"$made"
	lc start x
	status 1
	errhas 'field `base` must be empty for YAML validation'
	ok 'a base in the lima.yaml of an instance is refused'

	# the command template
	printf 'base: os.yaml\n' >"$d/only.yaml"
	lc template copy --embed-all "$d/only.yaml" "$T/copy.yaml"
	status 0
	holds cmp "$d/os.yaml" "$T/copy.yaml"
	mode "$T/copy.yaml" 644
	printf '# one, no list\nbase: template:_default/mounts # that\ncpus: 2\n' >"$d/one.yaml"
	printf 'base: %s' "$d/one.yaml" >"$T/in"
	"$LIMACTL" tmpl copy --embed - - <"$T/in" >"$T/copy.yaml" || bad 'a base for itself'
	holds cmp "$d/one.yaml" "$T/copy.yaml"
	lc tmpl copy --verbatim "$d/only.yaml"
	outis 'base: os.yaml'
	lc tmpl copy "$d/only.yaml" -
	outis "base: $d/os.yaml"
	printf 'base: [os.yaml, template:_default/mounts]\ncpus: 2\n' >"$d/t.yaml"
	lc tmpl copy --embed "$d/t.yaml"
	outhas 'memory: 1GiB'
	outhas 'template:_default/mounts'
	outlacks 'mounts:'
	printf 'base: [template:_default/mounts, os.yaml]\ncpus: 2\n' >"$d/t.yaml"
	lc tmpl copy --embed "$d/t.yaml"
	fatal "cannot embed template \`$d/os.yaml\` after not embedding \`template:_default/mounts\`"
	lc tmpl copy --embed-all "$d/t.yaml"
	outhas 'mounts:'
	outlacks base
	lc tmpl copy --fill "$d/t.yaml"
	outhas 'cpus: 2'
	outhas 'plain: false'
	lc tmpl copy --fill --verbatim "$d/t.yaml"
	fatal '--verbatim cannot be used with any of --embed, --embed-all, or --fill'
	ok 'template copy'
	lc template yq "$d/t.yaml" '.cpus, .images[0].location'
	outis "2
/etc/profile"
	lc template yq "$d/t.yaml" '.networks[].lima'
	status 0
	noout
	lc template url template://debian-12
	outis template:debian-12
	lc template validate "$d/t.yaml"
	status 0
	errhas ': OK'
	ok 'template yq, url, validate'
}
