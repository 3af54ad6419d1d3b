// Puts the animations into the page, each of which it holds once, moves or holds them, and makes gallery and map answer.
'use strict';
const CLIPS = JSON.parse(document.getElementById('clips').textContent), STILLS = [];
let moving = !matchMedia('(prefers-reduced-motion: reduce)').matches;
const still = number => STILLS[number] ??= new Promise(done => {  // the first frame
  const image = new Image();
  image.onload = () => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext('2d').drawImage(image, 0, 0);
    done(canvas.toDataURL());
  };
  image.src = CLIPS[number];
});
const fill = async image => {
  const number = image.dataset.clip, moves = moving, source = moves ? CLIPS[number] : await still(number);
  if (image.dataset.clip === number && moving === moves) image.src = source;
};
const fillAll = () => document.querySelectorAll('img[data-clip]').forEach(fill);
const motion = document.createElement('button');
Object.assign(motion, {id: 'motion', type: 'button'});
const tell = () => { motion.textContent = moving ? 'Hold the pictures' : 'Let the pictures move'; };
motion.addEventListener('click', () => { moving = !moving; tell(); fillAll(); });
document.body.append(motion);
tell();
fillAll();

const gallery = document.getElementById('gallery');
if (gallery) {
  const [choice, wrong, shown] = ['class', 'wrong', 'shown'].map(name => gallery.querySelector(`[name=${name}]`));
  const queries = [...gallery.querySelectorAll('.query')];
  const filter = () => {
    for (const query of queries) {
      query.hidden = (choice.value && query.dataset.class !== choice.value) || (wrong.checked && query.dataset.right);
    }
    shown.value = `${queries.filter(query => !query.hidden).length} of ${queries.length} queries shown`;
  };
  choice.addEventListener('change', filter);
  wrong.addEventListener('change', filter);
  filter();
}

const map = document.querySelector('.map');
if (map) {
  const tip = map.querySelector('.tip');
  const points = [...map.querySelectorAll('circle')];
  const show = point => {
    const place = map.getBoundingClientRect(), dot = point.getBoundingClientRect();
    tip.querySelector('img').dataset.clip = point.dataset.clip;
    fill(tip.querySelector('img'));
    tip.querySelector('span').textContent = point.getAttribute('aria-label');
    tip.hidden = false;
    const left = dot.left - place.left + dot.width + 6;
    tip.style.left = `${Math.max(0, Math.min(left, place.width - tip.offsetWidth))}px`;
    tip.style.top = `${Math.max(0, dot.top - place.top - tip.offsetHeight - 6)}px`;
  };
  for (const point of points) {
    point.addEventListener('pointerenter', () => show(point));
    point.addEventListener('focus', () => show(point));
    for (const end of ['pointerleave', 'blur']) point.addEventListener(end, () => { tip.hidden = true; });
  }
  // One stop of the tabulator; arrows go on from there, over the points that are not dimmed.
  const enter = point => { for (const other of points) other.tabIndex = other === point ? 0 : -1; };
  enter(points[0]);
  map.addEventListener('keydown', event => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
    const bright = points.filter(point => !point.classList.contains('dim'));
    if (!step || !bright.length) return;
    event.preventDefault();
    const next = bright[(bright.indexOf(document.activeElement) + step + bright.length) % bright.length];
    enter(next);
    next.focus();
  });
  const buttons = [...document.querySelectorAll('.legend button')];
  for (const button of buttons) {
    button.addEventListener('click', () => {
      const on = button.getAttribute('aria-pressed') !== 'true';
      for (const other of buttons) other.setAttribute('aria-pressed', other === button && on);
      for (const point of points) point.classList.toggle('dim', on && point.dataset.class !== button.dataset.class);
      enter(points.find(point => !point.classList.contains('dim')));
    });
  }
}
