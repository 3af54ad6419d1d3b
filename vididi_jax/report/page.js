// Puts the animations into the page, each of which it holds once, and makes gallery and map answer.
'use strict';
const CLIPS = JSON.parse(document.getElementById('clips').textContent);
for (const image of document.querySelectorAll('img[data-clip]')) image.src = CLIPS[image.dataset.clip];

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
    tip.querySelector('img').src = CLIPS[point.dataset.clip];
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
  const buttons = [...document.querySelectorAll('.legend button')];
  for (const button of buttons) {
    button.addEventListener('click', () => {
      const on = button.getAttribute('aria-pressed') !== 'true';
      for (const other of buttons) other.setAttribute('aria-pressed', other === button && on);
      for (const point of points) point.classList.toggle('dim', on && point.dataset.class !== button.dataset.class);
    });
  }
}
