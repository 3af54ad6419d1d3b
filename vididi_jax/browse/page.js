// A video that is chosen, by name, by a click or by a key, and its nearest others.

const VIDEOS = JSON.parse(document.getElementById('videos').textContent);
const [field, asked, near, told] = ['pick', 'asked', 'near', 'told'].map(name => document.getElementById(name));

const tile = (number, text) => {
  const figure = document.createElement('figure'), image = document.createElement('img');
  const caption = document.createElement('figcaption');
  Object.assign(image, {className: 'clip', alt: VIDEOS.names[number]});
  image.dataset.clip = number;
  fill(image);
  caption.textContent = text + VIDEOS.names[number];
  Object.assign(figure, {tabIndex: 0, role: 'button', title: VIDEOS.names[number]});
  figure.dataset.video = number;
  figure.append(image, caption);
  return figure;
};
const choose = number => {
  field.value = VIDEOS.names[number];
  asked.replaceChildren(tile(number, ''));
  near.replaceChildren(...VIDEOS.near[number].map((other, i) => tile(other, `${VIDEOS.scores[number][i].toFixed(4)} `)));
  told.value = near.childElementCount ? `the nearest to ${VIDEOS.names[number]}` : 'there is no other video';
};
const picked = event => {
  const figure = event.target.closest('[data-video]');
  if (!figure) return;
  choose(Number(figure.dataset.video));
  document.getElementById('search').scrollIntoView();
  asked.firstChild.focus({preventScroll: true});  // what was pressed may be gone
};
document.addEventListener('click', picked);
document.addEventListener('keydown', event => {
  if ((event.key === 'Enter' || event.key === ' ') && event.target.closest('[data-video]')) {
    event.preventDefault();  // space would scroll
    picked(event);
  }
});
field.addEventListener('change', () => {
  const number = VIDEOS.names.indexOf(field.value);
  if (number >= 0) choose(number);
  else told.value = 'no video has this name';
});
choose(0);
